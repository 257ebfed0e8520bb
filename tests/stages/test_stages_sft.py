"""SFT: data sets with weights, adapters, dropout, overfitting, and what must survive a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from stages_small import Small
from test_stages_resume import finish, kill_after, newest_snapshot, weights

from fledge.core.config import build
from fledge.core.errors import ConfigError
from fledge.core.records import Conversation
from fledge.generate.engine import Engine, Request
from fledge.generate.loaded import load
from fledge.generate.sampling import Sampling
from fledge.model.hf import load_decoder
from fledge.stages import lineage, sft
from fledge.stages.dialogues import Account, read_conversations
from fledge.stages.mixing import order_of_sets
from fledge.tokenizer.chat import encode_prompt
from fledge.tokenizer.tokenizer import Tokenizer

LORA = {"r": 4, "alpha": 16, "targets": ["q_proj", "v_proj", "down_proj"]}


def steps(count: int) -> dict[str, Any]:
    return {"epochs": None, "steps": count}


def write_sets(small: Small, folder: Path) -> list[Path]:
    """The small world's conversations, in two files of uneven size."""
    rows = Path(small.at("world/sft.jsonl")).read_text(encoding="utf-8").splitlines()
    paths = [folder / "zh.jsonl", folder / "en.jsonl"]
    for path, part in zip(paths, (rows[:90], rows[90:]), strict=True):
        path.write_text("\n".join(part) + "\n", encoding="utf-8")
    return paths


def test_weights_are_shares_of_the_trained_tokens(small: Small, tmp_path: Path) -> None:
    paths = write_sets(small, tmp_path)
    data = [{"path": str(path), "weight": weight} for path, weight in zip(paths, (1, 3), strict=True)]
    metrics = small.run("sft", tmp_path / "model", data=data, **steps(25))["metrics"]
    zh, en = metrics["data_sets"]
    assert (zh["source"], zh["asked"], en["asked"]) == ("0 zh.jsonl", 0.25, 0.75)
    assert zh["taken"] == pytest.approx(0.25, abs=0.03)
    assert en["epochs"] > 4 * zh["epochs"]
    assert metrics["rows_never_taken"] > 0
    said = list(lineage.describe(tmp_path / "model", 3, 5))
    assert "jsonl" in said[-1]


def test_the_order_of_weighted_sets_goes_on_exactly() -> None:
    sizes = np.random.default_rng(0).integers(1, 50, 60)
    members = np.split(np.arange(60), [40, 55])

    def order() -> Any:
        return order_of_sets(["a", "b", "c"], members, sizes, [2, 1, 1], seed=4)

    quiet = order()
    whole = [quiet.take_many(7) for _ in range(60)]
    begun = order()
    assert [begun.take_many(7) for _ in range(23)] == whole[:23]
    again = order()
    again.load_state(json.loads(json.dumps(begun.state())))
    assert [again.take_many(7) for _ in range(37)] == whole[23:]
    tokens = np.array([sizes[[i for part in whole for i in part if i in set(group)]].sum() for group in members])
    assert tokens / tokens.sum() == pytest.approx([0.5, 0.25, 0.25], abs=0.02)
    for count in range(5, 60):  # at every moment, not only at the end
        flat = np.array([i for part in whole[:count] for i in part])
        share = sizes[flat[flat < 40]].sum() / sizes[flat].sum()
        assert abs(share - 0.5) < 50 / sizes[flat].sum() + 0.02


def test_some_weights_are_refused() -> None:
    values = {"model": "m", "optimizer": {"lr": 1}, "data": [{"path": "a", "weight": 1}, "b"]}
    with pytest.raises(ConfigError, match="give all sets a weight or none of them"):
        build(sft.Config, values)
    assert build(sft.Config, {**values, "data": ["a", "b"]}).paths == (Path("a"), Path("b"))


def test_an_adapter_of_a_stage_is_read_by_peft_and_by_us(small: Small, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("peft", reason="peft is not installed (pip install fledge[parity])")
    out = tmp_path / "adapter"
    changes: dict[str, Any] = {"optimizer": {"lr": 2e-2}, **steps(4)}
    metrics = small.run("sft", out, lora=LORA, **changes)["metrics"]
    assert metrics["trained_parameters"] < metrics["parameters"] / 10
    assert not (out / "model.safetensors").exists()
    merged = small.run("sft", tmp_path / "merged", lora={**LORA, "merged": True}, **changes)
    assert merged["metrics"]["loss"] == metrics["loss"]
    tokens = torch.arange(3, 40)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out)
    whole = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    base = transformers.AutoModelForCausalLM.from_pretrained(small.at("pretrain"))
    with torch.no_grad():
        logits, by_merged, before = (model(tokens[None]).logits for model in (theirs, whole, base))
    torch.testing.assert_close(by_merged, logits, rtol=1e-4, atol=1e-4)
    assert float((before - logits).abs().max()) > 0.1
    ours, saved = load_decoder(out), load_decoder(tmp_path / "merged")
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, saved.state_dict()[name])
    loaded = load(out)
    prompt = encode_prompt(loaded.tokenizer, [{"role": "user", "content": "你好"}])
    assert Engine((loaded.decoder, loaded.tokenizer)).generate([Request(prompt, 1, Sampling(max_new_tokens=3))])[0]


@pytest.mark.parametrize("stage", ["dpo", "grpo"])
def test_later_stages_train_adapters(stage: str, small: Small, tmp_path: Path) -> None:
    """The reference of both is the model without them: at the start the policy is the reference."""
    changes: dict[str, Any] = {"lora": LORA, "steps": 2} if stage == "grpo" else {"lora": LORA, "epochs": 0.3}
    out = tmp_path / stage
    metrics = small.run(stage, out, **changes)["metrics"]
    assert metrics["trained_parameters"] < metrics["parameters"] / 10
    first = json.loads((out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    if stage == "dpo":
        assert (first["accuracy"], first["margin"]) == (pytest.approx(0.5, abs=0.2), pytest.approx(0, abs=1e-4))
    else:
        assert first["kl"] == pytest.approx(0, abs=1e-5)
        assert first["engine_gap"] < 1e-3
    assert load_file(out / "adapter_model.safetensors")


def test_adapters_on_adapters_are_refused_unless_merged(small: Small, tmp_path: Path) -> None:
    small.run("sft", tmp_path / "first", lora=LORA, **steps(1))
    with pytest.raises(ConfigError, match="holds adapters itself"):
        small.run("sft", tmp_path / "second", model=str(tmp_path / "first"), lora=LORA, **steps(1))
    small.run("sft", tmp_path / "third", model=str(tmp_path / "first"), lora={**LORA, "merged": True}, **steps(1))
    assert (tmp_path / "third" / "model.safetensors").exists()


@pytest.mark.long
def test_a_kill_with_adapters_dropout_and_weights(small: Small, tmp_path: Path) -> None:
    data = [{"path": str(path), "weight": 1} for path in write_sets(small, tmp_path)]
    options: dict[str, Any] = {"lora": {**LORA, "merged": True}, "dropout": 0.1, "data": data, **steps(8)}
    finish(small, "sft", tmp_path / "quiet", **options)
    kill_after(small, "sft", tmp_path / "killed", 3, **options)
    snapshot = tmp_path / ".killed.partial" / "snapshots" / newest_snapshot(tmp_path / "killed")
    tensors = load_file(snapshot / "rank-0.safetensors")
    assert all(".lora_" in name for name in tensors if name.startswith("policy/")), "nothing that is frozen is in it"
    finish(small, "sft", tmp_path / "killed", **options)
    assert weights(tmp_path / "killed") == weights(tmp_path / "quiet")


def test_dropout_is_in_training_and_not_in_what_comes_of_it(small: Small, tmp_path: Path) -> None:
    runs = {rate: small.run("sft", tmp_path / f"{rate}", dropout=rate, **steps(3)) for rate in (0.0, 0.3)}
    losses = {rate: manifest["metrics"]["loss"] for rate, manifest in runs.items()}
    assert losses[0.3] != losses[0.0]
    # cut otherwise: the same masks, so the same run but for rounding
    cut = small.run(
        "sft", tmp_path / "cut", dropout=0.3, **steps(3),
        loop={"micro_tokens": 200, "snapshot_seconds": 1e9, "tensorboard": False},
    )  # fmt: skip
    assert cut["metrics"]["loss"] == pytest.approx(losses[0.3], rel=1e-4)


def test_32_conversations_are_learned_by_heart(small: Small, tmp_path: Path) -> None:
    """SPEC H.6: to a loss below .05, with norms clipped; then it says them, and stops at the end of the turn."""
    rows = sorted(Path(small.at("world/sft.jsonl")).read_text(encoding="utf-8").splitlines(), key=len)[:32]
    data = tmp_path / "few.jsonl"
    data.write_text("\n".join(rows) + "\n", encoding="utf-8")
    out = tmp_path / "model"
    optimizer = {"lr": 6e-3, "weight_decay": 0.0, "schedule": {"kind": "constant", "warmup": 5}}
    metrics = small.run("sft", out, data=[str(data)], batch_size=32, **steps(60), optimizer=optimizer)["metrics"]
    assert metrics["loss"] < 0.05
    loaded = load(out)
    tokenizer = loaded.tokenizer
    requests, wanted = [], []
    for row in rows:
        record = Conversation.model_validate(json.loads(row))
        requests.append(
            Request(
                encode_prompt(tokenizer, record.messages[:-1]), 1, Sampling(temperature=0, max_new_tokens=200),
                (tokenizer.im_end, tokenizer.endoftext),
            )
        )  # fmt: skip
        wanted.append(record.messages[-1].content)
    replies = [group[0] for group in Engine((loaded.decoder, tokenizer)).generate(requests)]
    assert all(reply.reason == "stop" for reply in replies)
    said = [tokenizer.decode(reply.tokens, skip_control=True) for reply in replies]
    assert np.mean([text == want for text, want in zip(said, wanted, strict=True)]) > 0.9


def test_after_clipping_the_norm_is_that_of_the_configuration(small: Small) -> None:
    from fledge.train.batch import pack
    from fledge.train.objective import Likelihood
    from fledge.train.optimizer import OptimizerConfig
    from fledge.train.trainee import Trainee

    decoder, tokenizer = load_decoder(small.at("pretrain")), Tokenizer.load(small.at("pretrain"))
    data = [Path(small.at("world/sft.jsonl"))]
    examples = read_conversations(data, tokenizer, "response", 512, "fail", Account())[:8]
    trainee = Trainee(decoder, OptimizerConfig(lr=1e-9, clip=0.5))
    objective = Likelihood()
    trainee.loss(pack(examples), objective, objective.denominators(examples))[0].backward()
    norms: list[float] = []
    zero_grad = trainee.optimizers[0].zero_grad

    def watch(set_to_none: bool = True) -> None:
        norms.append(float(torch.stack([p.grad.norm() for p in decoder.parameters() if p.grad is not None]).norm()))
        zero_grad(set_to_none)

    trainee.optimizers[0].zero_grad = watch  # type: ignore[method-assign]
    assert trainee.step(0, 10)["grad_norm"] > 0.5
    assert norms == [pytest.approx(0.5, rel=1e-3)]
