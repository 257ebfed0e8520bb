"""Stage reward: the loss against its literal formula, rankings, balance, what is measured, and bad input."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from stages_small import Small
from test_stages_ranks import on_two_ranks

from fledge.core.errors import ArtefactError, ConfigError, DataError, FledgeError
from fledge.core.records import Message
from fledge.model.attention import PackedAttention
from fledge.model.decoder import Decoder
from fledge.model.scalar import ScalarDecoder, load_scalar
from fledge.recipe import stage_config
from fledge.reward.model import RewardModel
from fledge.stages.balance import TagOrder
from fledge.stages.dialogues import Account
from fledge.stages.rankings import Columns, Ranked, ranking_example, read_rankings, split_by_prompt
from fledge.stages.reward import BradleyTerry
from fledge.tokenizer.chat import encode_prompt
from fledge.tokenizer.tokenizer import Tokenizer
from fledge.train.batch import Example, Segment, pack
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee

PLAIN = Columns()
ANSWERS = [[5, 6, 7, 2], [8, 2], [9, 10, 11, 12, 2], [13, 2]]


def model(decoder: Decoder, language: bool = True) -> ScalarDecoder:
    made = ScalarDecoder(decoder.config, language)
    made.load_state_dict(decoder.state_dict(), strict=False)
    made.start_score("normal", 1)
    return made


def rankings() -> list[Example]:
    """A pair, a ranking of four with a tie, and one of three."""
    rows = [
        ([1, 20, 21, 3], ANSWERS[:2], [1, 2], [0.5, 0.0]),
        ([1, 30, 3], ANSWERS, [1, 2, 2, 3], [3.0, 1.0, 1.0, 0.0]),
        ([1, 40, 41, 42, 3], ANSWERS[1:], [1, 2, 3], [2.0, 1.0, -1.0]),
    ]
    return [ranking_example(*row, origin=str(k), language=True) for k, row in enumerate(rows)]


def apart(example: Example) -> Example:
    """The same, with the prompt repeated before each answer instead of shared."""
    prompt, *answers = example.segments
    zeros = np.zeros(len(prompt.tokens), np.float32)
    return Example(
        tuple(
            Segment(
                np.concatenate([prompt.tokens, s.tokens]), np.concatenate([zeros, s.weight]), values=s.values,
                origin=s.origin,
            )
            for s in answers
        )
    )  # fmt: skip


def gradient(
    decoder: ScalarDecoder, objective: BradleyTerry, examples: list[Example]
) -> tuple[float, dict[str, torch.Tensor]]:
    decoder.zero_grad(set_to_none=True)
    trainee = Trainee(decoder, OptimizerConfig(lr=1.0))
    loss, _, _ = trainee.loss(pack(examples), objective, objective.denominators(examples))
    loss.backward()
    return float(loss.detach()), {n: p.grad.clone() for n, p in decoder.named_parameters() if p.grad is not None}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert float((one[name] - other[name]).norm() / one[name].norm().clamp(min=1e-12)) < 1e-5, name


def test_the_literal_formula(tiny_decoder: Decoder) -> None:
    """Answer by answer, each with its own copy of the prompt: mean over rankings of the mean over their pairs."""
    made = model(tiny_decoder)
    objective = BradleyTerry(margin_scale=0.7, centre=0.05, language=0.3)
    examples = rankings()
    value, grads = gradient(made, objective, examples)
    made.zero_grad(set_to_none=True)
    losses, nll, tokens = [], torch.zeros(()), 0
    for example in examples:
        rewards = []
        for k, one in enumerate(apart(example).segments):
            alone = pack([Example((Segment(one.tokens, one.weight),))])
            trainee = Trainee(made, OptimizerConfig(lr=1.0))
            hidden = made(alone.tokens, PackedAttention(alone.plan, trainee.rotary, torch.float32))
            rewards.append(hidden[len(one.tokens) - 1] @ made.score.weight[0])
            if k == 0:
                logits = hidden[: len(one.tokens)] @ made.output_weight.T
                answer = slice(len(example.segments[0].tokens), len(one.tokens))
                picked = torch.tensor(one.tokens, dtype=torch.int64)[answer]
                nll = nll + F.cross_entropy(logits[answer.start - 1 : answer.stop - 1], picked, reduction="sum")
                tokens += len(picked)
        rank = [s.values["rank"] for s in example.segments[1:]]
        worth = [s.values["worth"] for s in example.segments[1:]]
        pairs = [
            -F.logsigmoid(rewards[i] - rewards[j] - 0.7 * (worth[i] - worth[j])) + 0.05 * (rewards[i] + rewards[j]) ** 2
            for i in range(len(rank))
            for j in range(len(rank))
            if rank[i] < rank[j]
        ]
        losses.append(torch.stack(pairs).mean())
    assert [len(e.segments) - 1 for e in examples] == [2, 4, 3]
    literal = torch.stack(losses).mean() + 0.3 * nll / tokens
    literal.backward()
    assert value == pytest.approx(float(literal.detach()), rel=1e-5)
    assert_same({n: p.grad for n, p in made.named_parameters() if p.grad is not None}, grads)


def test_without_a_language_loss_nothing_is_predicted(tiny_decoder: Decoder) -> None:
    """No token is trained on, and the embedding still learns; a new head of zeros gives ln 2."""
    made = model(tiny_decoder, language=False)
    examples = [ranking_example([1, 2, 3], ANSWERS[:2], [1, 2], [0, 0], "")]
    assert examples[0].trained == 0
    _, grads = gradient(made, BradleyTerry(), examples)
    assert grads.keys() == dict(made.named_parameters()).keys()
    made.start_score("zero", 0)
    value, _ = gradient(made, BradleyTerry(), examples)
    assert value == pytest.approx(np.log(2))


def test_bf16_copy(tiny_decoder: Decoder) -> None:
    """The compute copy has the scalar head; its gradients arrive on the parameters."""
    made = model(tiny_decoder)
    objective, examples = BradleyTerry(language=0.3), rankings()
    _, exact = gradient(made, objective, examples)
    trainee = Trainee(made, OptimizerConfig(lr=1.0), torch.bfloat16)
    made.zero_grad(set_to_none=True)
    loss, _, _ = trainee.loss(pack(examples), objective, objective.denominators(examples))
    loss.backward()
    trainee.collect()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None
        assert F.cosine_similarity(parameter.grad.flatten(), exact[name].flatten(), 0) > 0.98, name


# ---- balance ---------------------------------------------------------------------------------------------------------


def test_tags_are_drawn_equally_often() -> None:
    tags = [["rare"]] * 2 + [["common"]] * 30 + [["both", "rare"]] * 5 + [[]]
    order = TagOrder(tags, seed=4)
    drawn = order.take_many(3 * 14)
    names = ["rare", "common", "both"]
    for turn in range(14):  # every round has each tag once
        here = drawn[3 * turn : 3 * turn + 3]
        assert any(row < 2 or 32 <= row < 37 for row in here)
        assert sum(2 <= row < 32 for row in here) == 1
    counts = Counter(drawn)
    assert set(counts) & set(range(2, 32)) == {row for row in drawn if 2 <= row < 32}
    assert all(counts[row] == 2 for row in range(2))  # 14 draws of 7 rows of "rare"
    assert 37 not in counts
    assert order.account() == {
        "tags": 3, "rows_of_rarest": 5, "rows_of_commonest": 30, "draws_of_each": 14.0, "epochs_of_rarest": 2.8,
        "epochs_of_commonest": round(14 / 30, 3),
    }  # fmt: skip
    assert order.never_taken == len(tags) - len(counts)
    assert sorted(order.names) == sorted(names)


def test_balance_goes_on_where_it_stood() -> None:
    tags = [[str(row % 7)] for row in range(60)]
    whole = TagOrder(tags, seed=1).take_many(200)
    half = TagOrder(tags, seed=1)
    assert half.take_many(77) == whole[:77]
    rest = TagOrder(tags, seed=1)
    rest.load_state(json.loads(json.dumps(half.state())))
    assert rest.take_many(123) == whole[77:]
    assert TagOrder(tags, seed=2).take_many(200) != whole
    with pytest.raises(DataError, match="no row has a tag"):
        TagOrder([[], []], seed=0)


# ---- data ------------------------------------------------------------------------------------------------------------


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, small: Small, limit: int = 128, columns: Columns = PLAIN) -> tuple[list[Ranked], Account]:
    account = Account()
    tokenizer = Tokenizer.load(small.at("tokenizer"))
    return read_rankings([path], tokenizer, limit, "skip", account, columns), account


def test_rankings_are_read(small: Small, tmp_path: Path) -> None:
    rows, account = read(
        write(
            tmp_path / "r.jsonl",
            [
                {"prompt": "Two?", "chosen": "two", "rejected": "three", "meta": {"margin": 1.5, "tags": ["a", "b"]}},
                {"prompt": "Two?", "answers": ["a", "b", "c"], "scores": [4, 1, 1], "meta": {"tags": "c"}},
                {"prompt": "Two?", "answers": ["a", "long " * 200, "c"], "meta": {"tags": "c"}},
            ],
        ),
        small, columns=Columns("margin", "tags"),
    )  # fmt: skip
    assert account.reasons == {"malformed": 1}  # no scores and three answers: nothing says by how much
    assert [row.tags for row in rows] == [("a", "b"), ("c",)]
    values = [[segment.values for segment in row.example.segments[1:]] for row in rows]
    assert [v["worth"] for v in values[0]] == [1.5, 0.0]
    assert [(v["rank"], v["share"]) for v in values[1]] == [(1.0, 0.5), (2.0, 0.5), (2.0, 0.5)]
    kept, account = read(tmp_path / "r.jsonl", small)
    assert len(kept[2].example.segments) == 3
    assert account.notes["answers of rankings left out: longer than the context"] == 1
    assert [s.values["rank"] for s in kept[2].example.segments[1:]] == [1.0, 2.0]


def test_bad_rows_are_counted(small: Small, tmp_path: Path) -> None:
    good = {"prompt": "Two?", "chosen": "two", "rejected": "three", "meta": {"margin": 1}}
    path = write(
        tmp_path / "bad.jsonl",
        [
            good,
            {**good, "rejected": "two"},
            {**good, "prompt": "word " * 300},
            {**good, "meta": {"margin": float("nan")}},
            {**good, "meta": {"margin": -1}},
            {**good, "meta": {}},
            {"prompt": "Two?", "answers": ["a", "b"], "scores": [float("nan"), 1]},
            {"prompt": "Two?", "answers": ["a", "b"], "scores": [1, 2]},
            {"prompt": "Two?", "answers": ["a", "b"], "scores": [1, 1]},
            {"prompt": "Two?", "answers": ["a", "a", "b"]},
            {"prompt": "Two?", "answers": ["a"]},
        ],
    )
    rows, account = read(path, small, columns=Columns("margin"))
    assert len(rows) == 1
    assert account.reasons == {"malformed": 9, "longer than the context": 1}
    reasons = " ".join(row["reason"] for row in account.rows)
    for part in ("same text", "no number from 0 on", "finite", "fall from the best", "one score", "at least two"):
        assert part in reasons, part


def test_the_split_is_by_prompt(small: Small) -> None:
    rows, _ = read(Path(small.at("world/preferences.jsonl")), small)
    kept, held_out = split_by_prompt(rows, 0.3, 1)
    prompts = [{row.example.segments[0].tokens.tobytes() for row in side} for side in (kept, held_out)]
    assert kept
    assert held_out
    assert not prompts[0] & prompts[1]
    again = split_by_prompt(rows[::-1], 0.3, 1)[1]
    assert {id(row) for row in again} == {id(row) for row in held_out}


# ---- the stage -------------------------------------------------------------------------------------------------------


def test_the_folder_and_its_quality(small: Small, tmp_path: Path) -> None:
    """Pre-training with the language loss, then fine-tuning from its folder: two runs of one stage."""
    data = [small.at("world/preferences.jsonl")]
    first = small.run("reward", tmp_path / "pmp", epochs=2, test=data, balance="skill")["metrics"]
    assert first["held_out_pairs"] == 30
    assert first["balance"]["tags"] >= 3
    assert first["rows_skipped"] == {}
    tagged = json.loads((tmp_path / "pmp" / "quality.json").read_text())["accuracy_by_tag"]
    assert sum(row["pairs"] for row in tagged.values()) == 30
    assert {"nll", "accuracy", "margin", "loss_centre", "loss_language"} <= first.keys()
    best = {"policy": small.at("pretrain"), "tasks": small.at("sums.jsonl"), "prompts": 3, "samples": 4,
            "max_new_tokens": 8}  # fmt: skip
    options = {"optimizer": {"lr": 3e-3}, "epochs": 8, "batch_size": 8, "best_of": best}
    plain = {"language": 0, "centre": 0, "balance": None}
    out = tmp_path / "reward"
    metrics = small.run("reward", out, model=str(tmp_path / "pmp"), test=data, **options, **plain)["metrics"]
    assert metrics["held_out_accuracy"] > 0.9  # of the pairs it was trained on
    assert metrics["accuracy"] > 0.8
    assert list(metrics["best_of_n"]) == ["1", "2", "4"]
    quality = json.loads((out / "quality.json").read_text())
    assert quality["accuracy"] == metrics["held_out_accuracy"]
    assert sum(row["pairs"] for row in quality["reliability"]) == 30
    best_of_n = quality["best_of_n"]
    assert best_of_n["oracle"]["4"] >= best_of_n["chosen"]["4"]
    assert best_of_n["reward"]["4"] > best_of_n["reward"]["1"]
    assert best_of_n["kl"]["1"] == 0
    assert best_of_n["unscored"] == 0

    model = RewardModel(out, policy=small.at("pretrain"), dtype="float32")
    rows = [json.loads(line) for line in Path(data[0]).read_text(encoding="utf-8").splitlines()]
    items = [(tuple(Message(**m) for m in row["prompt"]), row[side]) for row in rows for side in ("chosen", "rejected")]
    scores = model.score(items).reshape(-1, 2)
    hits = (np.sign(scores[:, 0] - scores[:, 1]) + 1) / 2
    assert hits.mean() == pytest.approx(quality["accuracy"])
    assert scores.mean() == pytest.approx(quality["reward_mean"], abs=1e-4)


def test_scores_of_ids_and_texts(small: Small, tmp_path: Path) -> None:
    small.run("reward", tmp_path / "reward", epochs=0.2, held_out=0)
    model = RewardModel(tmp_path / "reward", policy=small.at("pretrain"), dtype="float32", micro_tokens=32)
    tokenizer = model.tokenizer
    question = (Message(role="user", content="Two?"),)
    ids, two = encode_prompt(tokenizer, question), tokenizer.encode("two")
    scores = model.score(
        [
            (question, "two"), (ids, [*two, tokenizer.im_end]), (ids, two), (question, "three"),
            (ids, [*two, tokenizer.endoftext]), (ids, two * 5000), (question, ""),
        ]
    )  # fmt: skip
    # one answer, however it is handed over and however it ended; a last digit may follow from where it stands
    assert scores[[0, 1, 2, 4]] == pytest.approx(scores[0], abs=1e-6)
    assert abs(scores[3] - scores[0]) > 1e-5
    assert np.isnan(scores[5])  # does not fit the context
    assert np.isfinite(scores[6])
    assert model.score([(question, "three")])[0] == pytest.approx(scores[3], abs=1e-5)  # whoever stands beside it
    assert len(model.score([])) == 0
    with pytest.raises(ArtefactError, match="is no reward model"):
        RewardModel(small.at("pretrain"))
    other = tmp_path / "other"
    other.mkdir()
    tokenizer_json = json.loads((tmp_path / "reward" / "tokenizer.json").read_text())
    tokenizer_json["added_tokens"][0]["content"] = "<|other|>"
    (other / "tokenizer.json").write_text(json.dumps(tokenizer_json))
    with pytest.raises(ArtefactError, match="another tokenizer"):
        RewardModel(tmp_path / "reward", policy=other)


def test_what_cannot_be_done_is_told(small: Small, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"margin_scale": 1.0}, "no row has a margin"),
        ({"balance": "topic"}, "no usable pair or ranking"),
        ({"held_out": 0.9999}, "leaves none of"),
        ({"best_of": {"policy": small.at("pretrain"), "tasks": small.at("world/sft.jsonl")}}, "no task here"),
    ]
    for name, (changes, problem) in enumerate(cases):
        with pytest.raises(FledgeError, match=problem):
            small.run("reward", tmp_path / str(name), **changes)


def test_a_reward_that_is_not_finite_stops_the_run(small: Small, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(small.at("pretrain"), broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"] *= float("inf")
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(FledgeError, match="nan"):
        small.run("reward", tmp_path / "out", model=str(broken))
    assert not (tmp_path / "out").exists()


def test_the_start_is_a_function_of_the_seed(small: Small) -> None:
    one, other = (load_scalar(small.at("pretrain"), seed=seed) for seed in (1, 2))
    assert not torch.equal(one.score.weight, other.score.weight)


def test_adapters_are_written_whole(small: Small, tmp_path: Path) -> None:
    """The head learns beside the adapters; only they and it change; a folder of adapters can be the start."""
    lora = {"r": 4, "merged": True}
    out = tmp_path / "reward"
    metrics = small.run("reward", out, lora=lora, epochs=0.5, dtype="bfloat16", language=0)["metrics"]
    assert metrics["trained_parameters"] < 0.3 * metrics["parameters"]
    start, end = load_scalar(small.at("pretrain"), seed=3), load_scalar(out)
    assert not torch.equal(start.score.weight, end.score.weight)
    assert torch.equal(start.model.embed_tokens.weight, end.model.embed_tokens.weight)
    assert not torch.equal(start.model.layers[0].mlp.up_proj.weight, end.model.layers[0].mlp.up_proj.weight)  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"lora\.merged=true"):
        small.run("reward", tmp_path / "other", lora={"r": 4})
    small.run("sft", tmp_path / "adapters", lora={"r": 4}, epochs=0.1)
    begun = small.run("reward", tmp_path / "begun", model=str(tmp_path / "adapters"), epochs=0.2)
    assert begun["metrics"]["steps"] >= 1


def test_the_preset_of_qwen1(small: Small) -> None:
    values = {"model": small.at("pretrain"), "data": [small.at("world/preferences.jsonl")], "preset": "qwen1"}
    config = stage_config("reward", {**values, "batch_size": 8}, "test")
    plain = config.plain()
    assert (plain["optimizer"]["lr"], plain["optimizer"]["schedule"]["kind"]) == (3e-6, "constant")
    assert (plain["batch_size"], plain["max_tokens"], plain["epochs"]) == (8, 2048, 1.0)


@pytest.mark.long
def test_two_ranks_are_as_one(small: Small, tmp_path: Path) -> None:
    """The head's one row on one rank; held-out pairs read by both, measured alike."""
    changes = {"optimizer": {"lr": 1e-3, "eps": 1e-4}, "epochs": 0.5}
    one, out = small.run("reward", tmp_path / "one", **changes), tmp_path / "two"
    done = on_two_ranks("reward", small.config("reward", **changes), out)
    assert done.returncode == 0, done.stderr[-3000:]
    two = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert one["metrics"].keys() == two["metrics"].keys()
    for key in ("loss", "margin", "held_out_reward_mean", "held_out_expected_calibration_error", "grad_norm"):
        assert two["metrics"][key] == pytest.approx(one["metrics"][key], rel=1e-3, abs=1e-5), key
    single, sharded = (load_file(folder / "model.safetensors") for folder in (tmp_path / "one", out))
    assert max(float((single[name] - sharded[name]).abs().max()) for name in single) < 1e-4
