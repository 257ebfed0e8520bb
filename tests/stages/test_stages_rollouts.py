"""Rollouts: dialogues with a tool grow by ids; what cannot be trained on is counted; what waits is state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rollouts_caller import AGAIN, OPEN, PLAIN, config, make_caller, make_words, messages, tasks
from stages_small import Small

from fledge.core.errors import ConfigError
from fledge.core.records import Task
from fledge.generate.pages import PagedCache
from fledge.model.decoder import Decoder
from fledge.stages.grpo import Groups, make_sampler
from fledge.stages.process import steps_of
from fledge.stages.rollouts import Rollout, Sampler, freeze
from fledge.stages.turns import Answer
from fledge.tokenizer.chat import encode_chat
from fledge.tokenizer.tokenizer import Tokenizer
from fledge.train.scoring import token_values
from fledge.train.trainee import Trainee


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return make_words()


@pytest.fixture(scope="module")
def caller(words: Tokenizer) -> Trainee:
    return make_caller(words)


def sample(
    caller: Trainee, words: Tokenizer, todo: list[Task], **rollout: Any
) -> tuple[list[Rollout], dict[str, float]]:
    return make_sampler(config({"prompts": len(todo), **rollout}), todo, words, 256).sample(caller)


CALCULATOR = {"use": "calculator", "calls": 4}


def test_a_dialogue_with_a_tool_grows_by_ids(caller: Trainee, words: Tokenizer) -> None:
    """Its ids are those of the whole dialogue, its mask that of SFT; what the tool said is not trained on."""
    groups, row = sample(caller, words, tasks("2+3?"), tool=CALCULATOR)
    whole = encode_chat(words, messages(OPEN), final_newline=False)
    prompt, *children = groups[0].example().segments
    assert len(children) == 2
    for answer, child in zip(groups[0].answers, children, strict=True):
        assert [*prompt.tokens, *child.tokens] == whole.ids
        assert [*prompt.weight, *child.weight] == whole.weights
        assert answer.text == "it is 5"
        assert [turn.plain() for turn in answer.turns] == [turn.plain() for turn in messages(OPEN)[1:3]]
        assert Answer.read(json.loads(json.dumps(answer.plain()))) == answer, "what other ranks are told"
    assert groups[0].rewards == [1, 1]
    assert row["tool_calls"] == 1
    assert row["tool_failed"] == row["tool_limit"] == 0
    assert row["answer_tokens"] == sum(whole.weights)


def test_engine_and_trainer_agree_over_turns(caller: Trainee, words: Tokenizer) -> None:
    """The log-probabilities of what the model said, in the packed layout beside what the tool said."""
    groups, _ = sample(caller, words, tasks("2+3?", "go"), tool=CALCULATOR, temperature=1.0, max_new_tokens=100)
    examples = [group.example() for group in groups]
    trainer = token_values(examples, lambda batch: caller.logp(batch, 1.0), 4096, caller.mesh)
    engine = np.concatenate([s.columns["engine"][s.weight > 0] for e in examples for s in e.segments[1:]])
    assert len(engine) > 40
    np.testing.assert_allclose(trainer, engine, atol=2e-4)


def test_calls_have_a_limit_and_so_has_the_answer(caller: Trainee, words: Tokenizer) -> None:
    groups, row = sample(caller, words, tasks("go"), tool={**CALCULATOR, "calls": 2})
    assert row["tool_calls"] == 2
    assert row["tool_limit"] == 1
    assert all(answer.reason == "stop" for answer in groups[0].answers)
    first = encode_chat(words, messages(AGAIN[:2]), final_newline=False).trained
    groups, row = sample(caller, words, tasks("go"), tool=CALCULATOR, max_new_tokens=first + 3, leave_out=[])
    assert row["cut_off"] == 1  # what the tool says does not fit
    assert all(len(answer.tokens) == first and answer.calls == 0 for answer in groups[0].answers)
    _, row = sample(caller, words, tasks("2+3?", "go"))
    assert "tool_calls" not in row
    with_error = {"use": "calculator", "tokens": 3}
    groups, row = sample(caller, words, tasks("2+3?"), tool=with_error)
    assert len(words.encode(groups[0].answers[0].turns[1].content)) <= 3


def test_what_cannot_be_trained_on_is_counted(
    caller: Trainee, words: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut answers, empty ones, and those that have no reward: not in the group, nor in its baseline."""
    todo = tasks("2+3?", "hi")
    groups, row = sample(caller, words, todo, max_new_tokens=2)
    assert [len(group.answers) for group in groups] == [0, 0]
    assert (row["groups_all_cut"], row["left_out"], row["cut_off"]) == (1, 1, 1)
    assert "reward" not in row
    groups, row = sample(caller, words, todo, max_new_tokens=2, leave_out=[])
    assert row["left_out"] == 0
    longer, shorter = (encode_chat(words, messages(turns[:2]), final_newline=False).trained for turns in (OPEN, PLAIN))
    assert longer > shorter
    groups, row = sample(caller, words, todo, max_new_tokens=longer - 1, leave_out=["cut"])
    assert {group.task.id: len(group.answers) for group in groups} == {"2+3?": 0, "hi": 2}
    (tmp_path / "moody.py").write_text("def score(task, reply):\n    return {'hi': 1.0}[task.id]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    parts = [{"kind": "function", "function": "moody:score"}]
    with pytest.warns(UserWarning, match="KeyError"):
        groups, row = make_sampler(config({"prompts": 2}, rewards=parts), todo, words, 256).sample(caller)
    assert {group.task.id: len(group.answers) for group in groups} == {"2+3?": 0, "hi": 2}
    assert (row["failed_function"], row["left_out"], row["reward"]) == (2, 0.5, 1)


def test_an_empty_answer_is_one_of_its_end_alone(words: Tokenizer) -> None:
    end = words.im_end
    assert Answer([end], [True], [0.0], "stop", "").empty
    assert not Answer([5, end], [True, True], [0.0, 0.0], "stop", "x").empty
    assert not Answer([5], [True], [0.0], "length", "x").empty


def test_a_rollout_of_which_nothing_is_usable_is_a_batch_all_the_same(caller: Trainee, words: Tokenizer) -> None:
    settings = config({"prompts": 2, "max_new_tokens": 2}, updates=2)
    source = Groups(make_sampler(settings, tasks("2+3?", "hi"), words, 256), settings, None, None)
    batch = source.next(0, {"policy": caller})
    assert [len(example.segments) for example in batch.examples] == [1]
    assert settings.objective().denominators(batch.examples) == {"policy": 1.0}
    assert batch.metrics["left_out"] == 1


@pytest.mark.parametrize("variant", ["reinforce", "rloo", "gspo"])
def test_what_is_sampled_is_the_same_after_a_kill(variant: str, caller: Trainee, words: Tokenizer) -> None:
    """Through JSON at every place, also between the updates of one rollout: tokens, columns, advantages, to the bit."""
    tool = {**CALCULATOR, "calls": 2}
    settings = config({"prompts": 2, "samples": 3, "temperature": 1.5, "tool": tool, "leave_out": []}, variant=variant,
                      updates=2, beta=0.1, max_tokens=256)  # fmt: skip
    reference = Decoder(caller.decoder.config)
    reference.initialise(1)

    def source() -> Groups:
        todo = tasks("2+3?", "hi", "go", answer={"any": ["5", "a", "i"]})
        return Groups(make_sampler(settings, todo, words, 256), settings, reference, None)

    def shown(source: Groups) -> str:
        batch = source.next(0, {"policy": caller})
        return json.dumps([[freeze(example) for example in batch.examples], batch.metrics])

    quiet = source()
    want = [shown(quiet) for _ in range(5)]
    assert len(set(want)) == 5
    killed, got = source(), []
    for _ in range(5):
        got.append(shown(killed))
        again = source()
        again.load_state(json.loads(json.dumps(killed.state())))
        killed = again
    assert got == want


def test_dynamic_sampling_replaces_level_groups(caller: Trainee, words: Tokenizer) -> None:
    """Groups whose rewards are all equal are drawn again while rounds last, and fill up where they run out."""
    settings = config({"prompts": 2, "samples": 4, "temperature": 1.5, "leave_out": []})
    todo = tasks("hi", answer={"any": ["bc"]}) + tasks("go", answer={"any": ["zzz"]})
    sampler: Sampler = make_sampler(settings, todo, words, 256)
    groups, row = sampler.sample(caller, extra_rounds=6)
    assert len(groups) == 2
    assert sampler.rounds <= 7
    assert row["groups_with_spread"] <= 0.5


def test_groups_that_fill_up_stand_where_they_were_drawn(caller: Trainee, words: Tokenizer) -> None:
    """Behind all others they would make up the last updates of a rollout, which would then teach nothing."""
    todo = tasks("hi", answer={"any": ["bc"]}) + tasks("go", answer={"any": ["zzz"]})
    level_first = 0
    for seed in range(8):
        settings = config({"prompts": 2, "samples": 4, "temperature": 1.5, "leave_out": []}, seed=seed)
        groups, _ = make_sampler(settings, todo, words, 256).sample(caller, extra_rounds=1)
        again = make_sampler(settings, todo, words, 256)
        drawn = [group for _ in range(2) for group in again._round(again.order.take_many(2), caller)[0]]
        places = [next(k for k, one in enumerate(drawn) if one.answers == group.answers) for group in groups]
        assert places == sorted(places)
        level_first += [group.spread for group in groups] == [False, True]
    assert level_first


def test_steps_are_cut_by_ids(words: Tokenizer) -> None:
    ids = [*words.encode("a\nbc\n\nd\n"), words.im_end]
    answer = Answer(ids, [True] * len(ids), [0.0] * len(ids), "stop", "")
    of, texts = steps_of(answer, words, "\n")
    assert "".join(texts) == "a\nbc\n\nd\n"
    assert len(texts) == 3
    assert of[0] == 0
    assert of[-1] == 2
    assert (np.diff(of) >= 0).all()


@pytest.mark.parametrize(("variant", "scaled"), [("dr_grpo", False), ("dapo", True)])
def test_steps_are_scaled_as_answers_are(
    variant: str, scaled: bool, caller: Trainee, words: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variant without a deviation has none for steps either. Of three steps the second has 1: the last is 1/3 low."""
    (tmp_path / "scaled_steps.py").write_text("def good(task, steps):\n    return [float('b' in s) for s in steps]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = config({"prompts": 1}, process={"function": "scaled_steps:good"}, variant=variant)
    source = Groups(make_sampler(settings, tasks("hi"), words, 256), settings, None, None)
    (example,) = source.next(0, {"policy": caller}).examples
    last = [segment.columns["step_advantage"][-1] for segment in example.segments[1:]]
    deviation = np.std([0, 1, 0] * 2, ddof=1) + 1e-4
    assert last == pytest.approx([-1 / 3 / (deviation if scaled else 1)] * 2, rel=1e-4)


def test_process_rewards_through_the_source(
    caller: Trainee, words: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step's reward reaches its own tokens and those before it; an answer whose steps have none is left out."""
    (tmp_path / "steps.py").write_text(
        "def good(task, steps):\n    assert task.id != 'go'\n    return [float('b' in step) for step in steps]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = config({"prompts": 2, "temperature": 0.05}, process={"function": "steps:good"})
    source = Groups(make_sampler(settings, tasks("hi", "go"), words, 256), settings, None, None)
    batch = source.next(0, {"policy": caller})
    assert batch.metrics["failed_process"] == 2
    assert batch.metrics["reward_process"] == pytest.approx(1 / 3)  # of three lines one has a b
    left, none = sorted(batch.examples, key=lambda example: -len(example.segments))
    assert len(none.segments) == 1
    for segment in left.segments[1:]:
        advantage = segment.columns["step_advantage"]
        up, down = 2 / 3, -1 / 3  # times one over the deviation; the sums of what is to come: 0, up + down, down
        assert advantage[0] == pytest.approx(0, abs=1e-5)
        assert advantage[-1] < 0
        assert max(advantage) / min(advantage) == pytest.approx((up + down) / down, rel=1e-4)


def test_answers_in_pages_train_as_without(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of the configuration reaches the engine, and what is sampled, scored and trained on is the same."""
    grown: list[bool] = []
    grow = PagedCache.grow
    monkeypatch.setattr(PagedCache, "grow", lambda cache: (grown.append(True), grow(cache))[1])
    rows = []
    for paged in (None, True):
        rollout = {"prompts": 4, "samples": 3, "max_new_tokens": 12, "leave_out": [], "paged": paged}
        out = tmp_path / f"paged-{paged}"
        small.run("grpo", out, steps=2, rollout=rollout)
        rows.append([json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()])
        assert bool(grown) == bool(paged)
    for plain, paged_row in zip(*rows, strict=True):
        for key in ("loss", "reward", "answer_tokens", "grad_norm"):
            assert paged_row[key] == pytest.approx(plain[key], rel=1e-4)
    with pytest.raises(ConfigError, match=r"rollout\.paged"):
        small.run("grpo", tmp_path / "odd", rollout={"paged": "perhaps"})
