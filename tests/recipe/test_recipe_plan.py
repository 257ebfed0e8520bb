"""What a recipe means, before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fledge.core.errors import ConfigError
from fledge.recipe import load_plan

CHAIN = """
name: chain
seed: 7
variables: {who: "", count: 2}
stages:
  b: {stage: write, source: "@a", text: "$who", times: $count}
  a: {stage: write, text: A, seed: 1, words: ["$who", "@@home", "$$5"]}
  c: {stage: write, source: "@b", more: ["@a/text.txt"]}
"""

Recipe = Callable[[str], str]


def test_order_paths_and_seed(recipe: Recipe, tmp_path: Path) -> None:
    plan = load_plan(recipe(CHAIN), out=tmp_path / "runs")
    assert [step.name for step in plan.steps] == ["a", "b", "c"]
    a, b, c = (step.config for step in plan.steps)
    assert b.source == tmp_path / "runs/chain/a"
    assert c.more == (tmp_path / "runs/chain/a/text.txt",)
    assert (a.seed, b.seed, c.seed) == (1, 7, 7)
    assert a.words == ("@home", "$5"), "an empty variable leaves the item of the list out"
    assert b.text == "x", "an empty variable leaves the key out"
    assert b.times == 2
    assert plan.dependents("a") == ["a", "b", "c"]
    assert plan.dependents("c") == ["c"]


def test_overrides(recipe: Recipe, tmp_path: Path) -> None:
    overrides = ["who=1e4: 'x' @a $b", "count=5", "seed=3", "c.inner.factor=4", "c.text=['no', x]"]
    with pytest.raises(ConfigError, match=r"stage c \(write\)[\s\S]*text"):
        load_plan(recipe(CHAIN), overrides, tmp_path)
    plan = load_plan(recipe(CHAIN), overrides[:-1], tmp_path, name="other")
    a, b, c = (step.config for step in plan.steps)
    assert b.text == "1e4: 'x' @a $b", "a variable that is a text is taken as it stands"
    assert a.words[0] == b.text
    assert (b.times, b.seed, c.inner.factor) == (5, 3, 4)
    assert plan.folder == tmp_path / "other"


def test_preset(recipe: Recipe, tmp_path: Path) -> None:
    text = "stages: {a: {stage: write, preset: PRESET, times: 2}}"
    (step,) = load_plan(recipe(text.replace("PRESET", "long")), out=tmp_path).steps
    assert (step.config.text, step.config.times, step.config.preset) == ("long", 2, "long")
    assert step.config.preset_facts() == {"name": "long", "source": "nobody published it", "overridden": ["times"]}
    with pytest.raises(ConfigError, match=r"stage a .*\n.*unknown preset; did you mean 'long'"):
        load_plan(recipe(text.replace("PRESET", "lon")), out=tmp_path)


@pytest.mark.parametrize(
    ("text", "overrides", "said"),
    [
        ("stages: {a: {stage: writ}}", [], "stage a: unknown stage type 'writ'; did you mean 'write'"),
        ("stages: {a: {text: x}}", [], "stage a: 'stage' is missing"),
        ("stages: {a: {stage: write, tmes: 2}}", [], "stage a .*\n.*tmes: unknown key; did you mean 'times'"),
        ("stages: {a: {stage: write, inner: {fctor: 2}}}", [], r"inner.fctor: unknown key; did you mean 'factor'"),
        ("stages: {a: {stage: write, times: many}}", [], "stage a .*\n.*times: .*'many'"),
        ("stages: {one: {stage: write, source: '@oen/x'}}", [], "stage one: source: '@oen/x' .*did you mean 'one'"),
        ("variables: {who: x}\nstages: {a: {stage: write, text: $whoo}}", [], "text: no variable 'whoo'; .* 'who'"),
        ("stages: {a: {stage: write, source: '@a'}}", [], "circle: a needs a"),
        (
            "stages: {a: {stage: write, source: '@c'}, b: {stage: write, source: '@a'}, "
            "c: {stage: write, source: '@b'}}",
            [],
            "circle: a needs c needs b needs a",
        ),
        ("stagse: {}", [], "unknown key 'stagse'; did you mean 'stages'"),
        ("stages: []", [], "'stages' must be a mapping"),
        ("stages: {a b: {stage: write}}", [], "stage a b: the name of a stage"),
        ("seed: often\nstages: {a: {stage: write}}", [], "seed: expected a whole number"),
        ("name: ../x\nstages: {a: {stage: write}}", [], "name: '../x' is not a folder's name"),
        ("stages: {sft: {stage: write}}", ["stf.times=2"], "no stage or variable 'stf'; did you mean 'sft'"),
        ("stages: {sft: {stage: write}}", ["sft=2"], "'sft' is a stage; write sft.KEY=value"),
        ("stages: {sft: {stage: write}}", ["sft.times"], "write it as key=value"),
        ("stages: {sft: {stage: write}}", ["sft.tims=1"], "stage sft .*\n.*tims: unknown key; did you mean 'times'"),
    ],
)
def test_clear_errors(recipe: Recipe, tmp_path: Path, text: str, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_plan(recipe(text), overrides, tmp_path)
    assert not (tmp_path / "recipe").exists(), "nothing is begun"


def test_unknown_recipe() -> None:
    with pytest.raises(ConfigError, match=r"no recipe 'smok'.*did you mean 'smoke'"):
        load_plan("smok")


def test_path_below_a_variable(recipe: Recipe, tmp_path: Path) -> None:
    text = 'variables: {data: ""}\nstages: {a: {stage: write, source: $data/b/c.txt}}'
    (step,) = load_plan(recipe(text), ["data=/some where/x"], tmp_path).steps
    assert step.config.source == Path("/some where/x/b/c.txt")
    with pytest.raises(ConfigError, match=r"stage a: source: '\$data/b/c.txt' needs a folder: give data=PATH"):
        load_plan(recipe(text), [], tmp_path)


@pytest.mark.parametrize("name", ["fledgling", "smoke"])
def test_shipped_recipes_resolve(name: str, tmp_path: Path) -> None:
    plan = load_plan(name, ["assistant_name=小雀's", "pages=/some/where"], tmp_path)
    corpus = next(step for step in plan.steps if step.stage == "corpus")
    assert "/some/where" in corpus.config.inputs
    world = next(step for step in plan.steps if step.stage == "microworld")
    assert world.config.assistant_name == "小雀's"
