"""Training never holds what the tests ask; and the proof notices when it does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fledge.core.errors import DataError
from fledge.microworld import lexicon, presets
from fledge.microworld.disjoint import check_disjoint, held_out_wordings, occurring
from fledge.microworld.generate import generate
from fledge.microworld.skills.table import SKILLS
from fledge.microworld.world import World

CONFIG = presets["smoke"].model_copy(
    update={"tests_per_skill": 40, "sft_conversations": 1500, "pages": 300, "preference_pairs": 300}
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disjoint")
    generate(CONFIG, folder)
    return folder


def test_nothing_of_the_tests_is_in_training(made: Path) -> None:
    assert check_disjoint(made) == []


@pytest.mark.parametrize("seed", [1, 2])
def test_nor_under_other_seeds(seed: int, tmp_path: Path) -> None:
    generate(CONFIG.model_copy(update={"seed": seed}), tmp_path)
    assert check_disjoint(tmp_path) == []


def _add(made: Path, folder: Path, question: str, answer: str) -> Path:
    shutil.copytree(made, folder)
    row = {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        "meta": {"skill": "x", "language": "en", "wording": "x", "keys": []},
    }
    with (folder / "sft.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return folder


def test_a_leaked_item_of_each_skill_is_noticed(made: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (made / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    folder = made
    for skill in SKILLS:
        row = next(r for r in rows if r["skill"] == skill and r["meta"]["wording"] == "seen")
        folder = _add(folder, tmp_path / skill, row["messages"][0]["content"], row["meta"]["reference"])
    found = check_disjoint(folder)
    for skill in SKILLS:
        assert any(line.startswith(skill) for line in found), skill


def test_operands_are_noticed_in_either_order(made: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (made / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    low, high = next(r for r in rows if r["skill"] == "arithmetic")["meta"]["key"].removeprefix("sum:").split("+")
    texts = (
        f"{high}+{low}=?",
        f"{high}加{low}",
        f"add {high} and {low}",
        f"{high} plus {low}",
        f"{low} coins and gets {high}",
    )
    folder = made
    for i, text in enumerate(texts):
        folder = _add(folder, tmp_path / str(i), text, "ok")
    found = [line for line in check_disjoint(folder) if line.startswith("operands")]
    assert len(found) == len(texts)


def test_a_phrase_beside_its_translation_is_noticed_in_any_wording(made: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (made / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    keys = {r["meta"]["key"] for r in rows}
    phrases = [(lexicon.phrase_en(*pair), lexicon.phrase_zh(*pair)) for pair in World(CONFIG).combinations[True]]
    english, chinese = next(pair for pair in phrases if f"phrase:{pair[0]}" in keys)
    alone = _add(made, tmp_path / "alone", f"I see {english}.", "Do you?")
    assert check_disjoint(alone) == []
    folder = _add(alone, tmp_path / "beside", f"Which words of ours mean {english}?", f"They are {chinese}, I think.")
    assert [line for line in check_disjoint(folder) if line.startswith("translation of a test in training")]


def test_accounts_state_facts_of_the_tests_but_never_ask_for_them(made: Path) -> None:
    tests = [json.loads(line) for line in (made / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = {r["messages"][0]["content"] for r in tests if r["skill"] == "recall"}
    rows = [json.loads(line) for line in (made / "sft.jsonl").read_text(encoding="utf-8").splitlines()]
    accounts = [r for r in rows if r["meta"]["skill"] == "about"]
    assert accounts
    assert not asked & {m["content"] for r in accounts for m in r["messages"] if m["role"] == "user"}


def test_a_held_out_wording_is_noticed(made: Path, tmp_path: Path) -> None:
    folder = _add(made, tmp_path / "w", "By what means could one bake?", "ok")
    assert any("held-out wording" in line for line in check_disjoint(folder))


def test_a_quarter_of_the_wordings_is_held_out() -> None:
    assert len(held_out_wordings()) == len(set(held_out_wordings()))
    assert len(held_out_wordings()) > 60


def test_occurring_agrees_with_plain_search() -> None:
    haystack = "the old map and 红色的梨子 lie in Oldport\n" * 3
    wanted = [
        "old map",
        "old ma",
        "红色的梨子",
        "红色的苹果",
        "Oldport",
        "port",
        "the old map and 红色的梨子 lie in Oldport",
    ]
    expected = ["old map", "红色的梨子", "Oldport", "the old map and 红色的梨子 lie in Oldport"]
    assert sorted(occurring(wanted, haystack)) == sorted(expected)


def test_a_folder_that_is_no_world_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a microworld"):
        check_disjoint(tmp_path)


@pytest.mark.long
def test_the_size_of_the_proof(tmp_path: Path) -> None:
    generate(presets["laptop"].model_copy(update={"tests_per_skill": 500}), tmp_path)
    assert check_disjoint(tmp_path) == []
