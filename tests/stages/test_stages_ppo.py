"""Stage ppo: what a rollout becomes, REINFORCE as its special case, its state, bad rewards, kills, its value model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stages_small import Small
from test_stages_resume import finish, kill_after, weights

from fledge.core.artefact import Work
from fledge.core.config import build
from fledge.core.errors import ConfigError
from fledge.model.attention import PackedAttention
from fledge.model.decoder import Decoder
from fledge.model.rotary import Rotary
from fledge.model.scalar import ScalarDecoder, load_scalar
from fledge.reward.verifiers import score
from fledge.stages import ppo
from fledge.stages.turns import Answer, Rollout
from fledge.train.batch import pack, single
from fledge.train.loop import Loop
from fledge.train.mesh import Mesh

PLAIN: dict[str, Any] = {
    "epochs": 1, "minibatches": 1, "clip": 1e9, "lam": 1.0, "whiten": False, "normalise": "none", "beta": 0.0,
    "bootstrap": False, "ptx": None, "replay": None, "adaptive_kl": None,
    "value": {"optimizer": {"lr": 1e-3}, "warmup": 0},
}  # fmt: skip


def make_loop(small: Small, folder: Path, **changes: Any) -> Loop:
    config = build(ppo.Config, small.config("ppo", **changes))
    folder.mkdir(parents=True, exist_ok=True)
    training = ppo.prepare(config, Work(folder / "out", folder, done=False), Mesh())
    return training.loop(config, folder, "", Mesh())


def hidden_of(decoder: Decoder, tokens: list[int]) -> torch.Tensor:
    """(L, h) of one text, alone."""
    batch = pack([single(tokens, np.zeros(len(tokens)))])
    rotary = Rotary(decoder.config.head_dim, decoder.config.rope_theta)
    return decoder(batch.tokens, PackedAttention(batch.plan, rotary, torch.float32))[: len(tokens)]


def answer_logp(decoder: Decoder, prompt: list[int], answer: list[int]) -> torch.Tensor:
    states = hidden_of(decoder, prompt + answer)[len(prompt) - 1 : -1]
    return (states @ decoder.output_weight.T).log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)]


def test_ppo_without_what_it_adds_is_reinforce(small: Small, tmp_path: Path) -> None:
    """SPEC J.10: one epoch, one minibatch, no clip, lambda 1, V = 0: the gradient of -mean R ln pi."""
    loop = make_loop(small, tmp_path, **PLAIN)
    source, policy = loop.source, loop.trainees["policy"]
    assert isinstance(source, ppo.Rollouts)
    batch = source.next(0, loop.trainees)
    tasks = {task.id: task for task in source.sampler.tasks}
    loop.accumulate("policy", batch.examples, loop.objective.denominators(batch.examples), {})
    ours = {name: p.grad.clone() for name, p in policy.decoder.named_parameters() if p.grad is not None}
    policy.decoder.zero_grad(set_to_none=True)
    total, count, rewards = torch.zeros(()), 0, []
    for example in batch.examples:
        prompt, *answers = example.segments
        for answer in answers:
            text = source.sampler.tokenizer.decode(answer.tokens.tolist())
            rewards.append(score(tasks[answer.origin[0]], text).value)
            logp = answer_logp(policy.decoder, prompt.tokens.tolist(), answer.tokens.tolist())
            total, count = total - rewards[-1] * logp.sum(), count + len(logp)
    assert {0.0, 1.0} <= set(rewards), "the tasks are meant to be solved sometimes"
    (total / count).backward()
    for name, parameter in policy.decoder.named_parameters():
        assert parameter.grad is not None
        assert (ours[name] - parameter.grad).norm() < 2e-5 * parameter.grad.norm(), name


def hand_made(small: Small, tmp_path: Path, **changes: Any) -> tuple[Loop, list[Rollout]]:
    """A loop, and two groups of answers for it: one ends, one is cut, one is a single token, one speaks with a tool."""
    loop = make_loop(small, tmp_path, **changes)
    source = loop.source
    assert isinstance(source, ppo.Rollouts)
    first, second = source.sampler.tasks[:2]
    one, two = source.sampler.prompts[:2]

    def answer(tokens: list[int], reason: Any, own: list[bool] | None = None) -> Answer:
        return Answer(tokens, own or [True] * len(tokens), [-1.0] * len(tokens), reason, "")

    plain = [answer([20, 30, 40, 2], "stop"), answer([50, 60, 70], "length")]
    others = [answer([2], "stop"), answer([9, 8, 7, 6], "stop", [True, False, False, True])]
    return loop, [Rollout(first, one, plain, [1.0, 0.25]), Rollout(second, two, others, [0.0, 0.5])]


def test_what_a_rollout_becomes(small: Small, tmp_path: Path) -> None:
    """Every column against plain formulas: shaped rewards, values of the states before the tokens, the bootstrap of the
    answer that was cut, GAE, whitening over the trained tokens; a tool's tokens are no step of the policy."""
    changes = {**PLAIN, "lam": 0.9, "gamma": 0.95, "beta": 0.1, "bootstrap": True, "whiten": True, "normalise": "mean"}
    loop, groups = hand_made(small, tmp_path, **changes)
    source, policy, value = loop.source, loop.trainees["policy"].decoder, loop.trainees["value"].decoder
    assert isinstance(source, ppo.Rollouts)
    assert isinstance(value, ScalarDecoder)
    with torch.no_grad():  # away from the reference and from V = 0
        policy.model.norm.weight.mul_(1.1)
        value.start_score("normal", 0)
        value.score.weight.mul_(3)
    (batch,) = source.batches(groups, loop.trainees)
    by_id = {example.segments[0].origin[0]: example for example in batch.examples}
    want_advantages, rows = [], []
    with torch.no_grad():
        for group in groups:
            for answer, reward, segment in zip(
                group.answers, group.rewards, by_id[group.task.id].segments[1:], strict=True
            ):
                own = np.array(answer.own)
                old = answer_logp(policy, group.prompt, answer.tokens).numpy()[own]
                ref = answer_logp(source.reference, group.prompt, answer.tokens).numpy()[own]
                states = hidden_of(value, group.prompt + answer.tokens) @ value.score.weight[0]
                values = states.numpy()[len(group.prompt) - 1 : -1][own]
                after = float(states[-1]) if answer.reason == "length" else 0.0
                r = -0.1 * (old - ref)
                r[-1] += reward - np.mean([1.0, 0.25, 0.0, 0.5])
                deltas = r + 0.95 * np.append(values[1:], after) - values
                a = [sum((0.95 * 0.9) ** (k - t) * deltas[k] for k in range(t, len(r))) for t in range(len(r))]
                want_advantages += a
                rows.append((segment, own, old, values, np.array(a) + values))
    assert batch.metrics["kl"] != 0
    white = (np.array(want_advantages) - np.mean(want_advantages)) / np.std(want_advantages)
    at = 0
    for segment, own, old, values, returns in rows:
        assert (segment.weight != 0).tolist() == own.tolist()
        for name, want in (("old", old), ("value", values), ("return", returns)):
            np.testing.assert_allclose(segment.columns[name][own], want, atol=2e-5, err_msg=name)
        np.testing.assert_allclose(segment.columns["advantage"][own], white[at : at + len(old)], atol=2e-4)
        at += len(old)


def test_the_running_mean_of_rewards(small: Small, tmp_path: Path) -> None:
    """Of all rollouts, the one at hand included; ``mean_deviation`` divides too; state carries it on."""
    loop, groups = hand_made(small, tmp_path, **{**PLAIN, "normalise": "mean_deviation"})
    source = loop.source
    assert isinstance(source, ppo.Rollouts)
    first = [1.0, 0.25, 0.0, 0.5]
    (batch,) = source.batches(groups, loop.trainees)
    assert batch.metrics["reward_mean_so_far"] == pytest.approx(np.mean(first))
    ends = sorted(s.columns["return"][-1] for e in batch.examples for s in e.segments[1:])
    assert ends == pytest.approx(sorted((np.array(first) - np.mean(first)) / np.std(first)), abs=1e-6)
    state = json.loads(json.dumps(source.state()))
    second = [Rollout(g.task, g.prompt, g.answers, [r + 3 for r in g.rewards]) for g in groups]
    every = [*first, *(r + 3 for r in first)]
    other = make_loop(small, tmp_path / "other", **{**PLAIN, "normalise": "mean_deviation"}).source
    assert isinstance(other, ppo.Rollouts)
    other.load_state(state)
    for one in (source, other):
        (batch,) = one.batches(second, loop.trainees)
        assert batch.metrics["reward_mean_so_far"] == pytest.approx(np.mean(every))
        assert batch.metrics["reward_deviation_so_far"] == pytest.approx(np.std(every))


def test_epochs_and_minibatches(small: Small, tmp_path: Path) -> None:
    """Every epoch takes each prompt once, in an order of its own; both answers of a prompt stay together."""
    loop = make_loop(small, tmp_path, epochs=3, minibatches=2, ptx=None, replay=None)
    source = loop.source
    parts = [[e.segments[0].origin[0] for e in source.next(step, loop.trainees).examples] for step in range(6)]
    epochs = [parts[0] + parts[1], parts[2] + parts[3], parts[4] + parts[5]]
    assert all(len(e) == 4 and sorted(e) == sorted(epochs[0]) for e in epochs)
    assert len({tuple(e) for e in epochs}) > 1
    assert all(len(part) == 2 for part in parts)


def test_the_kl_controller(small: Small, tmp_path: Path) -> None:
    """The coefficient falls by .2 x answers / horizon where the KL is below its target, and is state."""
    changes = {**PLAIN, "beta": 0.04, "adaptive_kl": {"target": 6.0, "horizon": 40.0}}
    loop, groups = hand_made(small, tmp_path, **changes)
    source = loop.source
    assert isinstance(source, ppo.Rollouts)
    source.batches(groups, loop.trainees)
    assert source.beta == pytest.approx(0.04 * (1 - 0.2 * 4 / 40))
    other = make_loop(small, tmp_path / "other", **changes).source
    other.load_state(json.loads(json.dumps(source.state())))
    assert isinstance(other, ppo.Rollouts)
    assert other.beta == source.beta


def test_text_beside_it_begins_with_the_policy(small: Small, tmp_path: Path) -> None:
    """Four tokens of text, or a piece more, for each of the dialogues; none while the policy waits; its own term."""
    ptx = {"shards": small.at("shards"), "context": 64, "ratio": 4.0, "coefficient": 0.5}
    loop = make_loop(small, tmp_path, ptx=ptx, value={"optimizer": {"lr": 1e-3}, "warmup": 2})
    source = loop.source
    assert isinstance(source, ppo.Rollouts)
    assert source.ptx is not None
    assert source.replay is not None
    rows = [loop.step(step) for step in range(2)]
    assert source.ptx.state()["taken"] == 0
    assert source.replay.order.taken == 0
    rows += [loop.step(step) for step in range(2, 4)]
    assert all("loss_ptx" not in row and row["lr"] == 0 for row in rows[:2])
    for row in rows[2:]:
        assert row["loss_ptx"] == pytest.approx(0.5 * row["ptx_nll"], rel=1e-5)
        every = [row[f"loss_{name}"] for name in ("policy", "value", "replay", "ptx")]
        assert row["loss"] == pytest.approx(sum(every), rel=1e-5)
    batch = loop.source.next(4, loop.trainees)
    text = sum(e.tokens for e in batch.examples if e.segments[0].values.get("ptx"))
    dialogues = sum(e.tokens for e in batch.examples if not e.module)
    assert 4 * dialogues <= text < 4 * dialogues + 64


def test_value_from_a_reward_model(small: Small, tmp_path: Path) -> None:
    """Body and head are taken over; the trained value is written beside the policy and can begin another run."""
    from fledge.model.scalar import save_scalar

    reward = load_scalar(small.at("pretrain"), start="normal", seed=5)
    folder = tmp_path / "reward"
    save_scalar(reward, folder, None)
    value = {"start": str(folder), "optimizer": {"lr": 1e-3}, "warmup": 1}
    loop = make_loop(small, tmp_path / "loop", value=value)
    for name, parameter in loop.trainees["value"].decoder.named_parameters():
        assert torch.equal(parameter, dict(reward.named_parameters())[name]), name
    out = tmp_path / "out"
    manifest = small.run("ppo", out, value=value, steps=3)
    assert "value" in manifest["inputs"]
    trained = load_scalar(out / "value")
    assert not torch.equal(trained.score.weight, reward.score.weight)
    again = make_loop(small, tmp_path / "again", value={**value, "start": str(out / "value")})
    assert torch.equal(dict(again.trainees["value"].decoder.named_parameters())["score.weight"], trained.score.weight)


def test_fresh_value_is_zero(small: Small, tmp_path: Path) -> None:
    loop = make_loop(small, tmp_path)
    batch = loop.source.next(0, loop.trainees)
    assert all((s.columns["value"] == 0).all() for e in batch.examples if not e.module for s in e.segments[1:])


@pytest.mark.long
@pytest.mark.parametrize("step", [2, 6], ids=["while the value is alone", "in the middle of a rollout"])
def test_a_kill(step: int, small: Small, tmp_path: Path) -> None:
    """Rollouts held, running mean, coefficient, cursors, both optimizers: the same two models, bit for bit."""
    quiet = small.root / "ppo-quiet"
    if not quiet.exists():
        finish(small, "ppo", quiet)
    out = tmp_path / "killed"
    kill_after(small, "ppo", out, step)
    finish(small, "ppo", out)
    assert weights(out) == weights(quiet)
    assert (out / "value" / "model.safetensors").exists()
    rows = [(folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines() for folder in (quiet, out)]
    for one, other in zip(*rows, strict=True):
        a, b = json.loads(one), json.loads(other)
        assert {k: v for k, v in a.items() if "second" not in k} == {k: v for k, v in b.items() if "second" not in k}


def rows_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_rewards_that_fail(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What raises or is no number is counted and left out: it is in no batch, and not in the running mean."""
    module = "def odd(task, text):\n    return 0.5 if len(text) % 2 else float('nan') if len(text) % 4 else 1 / 0\n"
    (tmp_path / "ppo_odd_rewards.py").write_text(module, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    rewards = [{"kind": "function", "function": "ppo_odd_rewards:odd"}]
    with pytest.warns(UserWarning, match="left out of training"):
        small.run("ppo", tmp_path / "out", rewards=rewards, steps=4, value={"optimizer": {"lr": 1e-3}, "warmup": 1})
    rows = rows_of(tmp_path / "out")
    assert sum(row["failed_function"] for row in rows) > 0
    assert all(row["reward"] == 0.5 and row["reward_mean_so_far"] == 0.5 for row in rows)
    assert all(math.isfinite(value) for row in rows for value in row.values())


def test_nothing_to_train_on(small: Small, tmp_path: Path) -> None:
    """Every answer is cut, and such are left out: the steps say so and go by; neither value nor policy is lost."""
    rollout = {"prompts": 4, "max_new_tokens": 1, "leave_out": ["cut", "empty"]}
    changes = {"rollout": rollout, "ptx": None, "replay": None, "steps": 3}
    small.run("ppo", tmp_path / "out", **changes, value={"optimizer": {"lr": 1e-3}, "warmup": 1})
    rows = rows_of(tmp_path / "out")
    assert [row["left_out"] for row in rows] == [1.0] * 3
    assert all(row["loss"] == 0 and row["value_grad_norm"] == 0 for row in rows)


def test_every_answer_is_cut(small: Small, tmp_path: Path) -> None:
    """And trained on: each goes on at its last state's value, and is told by ``cut_penalty``."""
    rollout = {"prompts": 4, "max_new_tokens": 2, "leave_out": []}
    loop = make_loop(small, tmp_path, rollout=rollout, cut_penalty=0.25, ptx=None, replay=None)
    batch = loop.source.next(0, loop.trainees)
    assert batch.metrics["cut_off"] > 0.5
    assert batch.metrics["reward"] == pytest.approx(
        batch.metrics["reward_verifier"] - 0.25 * batch.metrics["cut_off"], abs=1e-6
    )


def test_refusals(small: Small) -> None:
    with pytest.raises(ConfigError, match=r"value\.warmup=50 of steps=8: the policy would not be trained"):
        build(ppo.Config, small.config("ppo", value={"optimizer": {"lr": 1e-3}, "warmup": 50}))


def test_qwen1(small: Small) -> None:
    """Every number that the report publishes (2309.16609, section 3.2.2)."""
    config = build(ppo.Config, {"preset": "qwen1", "model": "m", "tasks": ["t"]})
    assert (config.optimizer.lr, config.value.optimizer.lr) == (1e-6, 5e-6)
    assert (config.value.warmup, config.value.clip) == (50, 0.15)
    assert (config.rollout.samples, config.rollout.top_p) == (2, 0.9)
    assert (config.beta, config.normalise) == (0.04, "mean")
    assert build(ppo.Config, {"preset": "qwen1", "model": "m", "tasks": ["t"], "rollout": {"top_p": 1.0}}).rollout == (
        ppo.PpoRollout(samples=2, top_p=1.0)
    )


def test_log_of_a_run(small: Small, tmp_path: Path) -> None:
    small.run("ppo", tmp_path / "out", steps=6)
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    wanted = {"reward", "kl", "kl_coefficient", "value_explained", "value_error", "value_lr", "lr", "cut_off"}
    assert wanted <= rows[0].keys()
    assert {"entropy", "clipped", "kl_old_new", "ratio_ess", "grad_norm", "ptx_nll", "replay_nll"} <= rows[-1].keys()
    assert all(math.isfinite(value) for row in rows for value in row.values())
