"""Promise 3: one gradient, however the global batch is cut, ordered, packed, or its prompts shared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from train_examples import documents, experience, groups, pairs, rankings

from fledge.model.decoder import Decoder
from fledge.model.scalar import ScalarDecoder
from fledge.stages.dialogues import WithReplay, beside
from fledge.stages.dpo import Dpo, DpoSettings
from fledge.stages.grpo import Grpo
from fledge.stages.online_dpo import BestOnly, OnlineDpo
from fledge.stages.ppo import Ppo
from fledge.stages.reward import BradleyTerry
from fledge.train.batch import Example, PackedBatch, Segment, cut, empty_example, pack
from fledge.train.objective import Likelihood, Objective, Outputs, Terms
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee

Make = Callable[[bool], list[Example]]


def with_replay(examples: list[Example], name: str = "replay") -> list[Example]:
    return examples + [beside(example, name) for example in documents(3, 7)]


def best_only(shared: bool) -> list[Example]:
    """Pairs of which the worse answer is not there."""
    cut_off = [replace(e, segments=e.segments[: 2 if shared else 1]) for e in pairs(shared=shared)]
    return [Example(tuple(replace(s, values=s.values) for s in e.segments)) for e in cut_off]


class PpoValue(Ppo):
    """The other module's loss, where the cases have one module."""

    def terms(self, batch: PackedBatch, outputs: Outputs, module: str) -> Terms:
        return super().terms(batch, outputs, "value")


def with_steps(examples: list[Example]) -> list[Example]:
    """Process rewards: an advantage of each token beside that of its answer."""
    return [
        Example(
            tuple(
                s.with_columns(step_advantage=np.cos(s.tokens).astype(np.float32)) if s.weight.any() else s
                for s in e.segments
            )
        )
        for e in examples
    ]


CASES: dict[str, tuple[Objective, Make]] = {
    "likelihood": (Likelihood(), lambda shared: documents()),
    "dpo": (Dpo(0.3), lambda shared: pairs(shared=shared)),
    "dpo-cdpo": (Dpo(0.3, "cdpo", 0.1), lambda shared: pairs(shared=shared)),
    "dpo-rdpo": (Dpo(0.3, "rdpo", 0.1), lambda shared: pairs(shared=shared)),
    "dpo-ipo": (Dpo(0.3, "ipo"), lambda shared: pairs(shared=shared)),
    "dpo-normalised-nll": (Dpo(2.0, length_normalised=True, nll=0.2), lambda shared: pairs(shared=shared)),
    "dpo-nca": (Dpo(0.3, "nca"), lambda shared: pairs(shared=shared)),
    "online-dpo": (
        OnlineDpo(DpoSettings(beta=0.3), compare=True), lambda shared: [*pairs(shared=shared), empty_example()],
    ),
    "rs_sft": (WithReplay(BestOnly(), 0.5), lambda shared: with_replay(best_only(shared))),
    "dpo-replay": (WithReplay(Dpo(0.3), 0.5), lambda shared: with_replay(pairs(shared=shared))),
    "grpo": (Grpo("grpo", 0.2, 0.2, 0.1, on_policy=False), lambda shared: groups(shared=shared)),
    "grpo-on-policy": (Grpo("grpo", 0.2, 0.2, 0.04), lambda shared: groups(shared=shared)),
    "dr_grpo": (Grpo("dr_grpo", 0.2, 0.2, 0, max_new_tokens=16, on_policy=False), lambda s: groups(shared=s, share="")),
    "dapo": (Grpo("dapo", 0.2, 0.28, 0, on_policy=False), lambda shared: groups(shared=shared, share="")),
    "grpo-process": (Grpo("grpo", 0.2, 0.2, on_policy=False), lambda shared: with_steps(groups(shared=shared))),
    "gspo": (Grpo("gspo", 0.1, 0.2, 0.1, on_policy=False, importance_cap=2.0), lambda s: groups(shared=s, near=0.1)),
    "rloo": (Grpo("rloo", 0.2, 0.2, 0.1, "k2", on_policy=False), lambda s: groups(shared=s, near=0.1)),
    "reinforce": (Grpo("reinforce", 0.2, 0.2), lambda shared: groups(shared=shared)),
    "ppo": (Ppo(0.2, 0.15), lambda shared: experience(shared=shared)),
    "ppo-value": (PpoValue(0.2, 0.15), lambda shared: experience(shared=shared)),
    "ppo-ptx-replay": (
        WithReplay(WithReplay(Ppo(0.2, 0.15), 2.0), 0.5, "ptx"),
        lambda shared: with_replay(with_replay(experience(shared=shared)), "ptx"),
    ),
    "reward": (BradleyTerry(0.7, 0.05), lambda shared: rankings(shared=shared)),
    "reward-language": (BradleyTerry(0.7, 0.05, 0.3), lambda shared: rankings(shared=shared)),
    "grpo-replay": (WithReplay(Grpo("grpo", 0.2, 0.2), 2.0), lambda shared: with_replay(groups(shared=shared))),
}


def module(name: str, decoder: Decoder) -> Decoder:
    """What the case trains: the decoder, or its body with a scalar head."""
    if not name.startswith("reward") and name != "ppo-value":
        return decoder
    made = ScalarDecoder(decoder.config, language_head=name == "reward-language")
    made.load_state_dict(decoder.state_dict(), strict=False)
    made.start_score("normal", 1)
    return made


def gradient(
    decoder: Decoder, objective: Objective, batches: list[list[Example]], dtype: torch.dtype = torch.float32
) -> tuple[dict[str, torch.Tensor], float]:
    """Gradient and loss of a global batch that comes in these micro-batches."""
    trainee = Trainee(decoder, OptimizerConfig(lr=1.0), dtype)
    decoder.zero_grad(set_to_none=True)
    denominators = objective.denominators([e for batch in batches for e in batch])
    total = 0.0
    for batch in batches:
        loss, _, _ = trainee.loss(pack(batch), objective, denominators)
        loss.backward()
        trainee.collect()
        total += float(loss.detach())
    return {n: p.grad.clone() for n, p in decoder.named_parameters() if p.grad is not None}, total


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    assert one.keys() == other.keys()
    for name in one:
        error = (one[name] - other[name]).norm() / one[name].norm().clamp(min=1e-12)
        assert error < tolerance, f"{name}: {error:.2e}"


@pytest.mark.parametrize("name", CASES)
def test_one_gradient(name: str, tiny_decoder: Decoder) -> None:
    objective, make = CASES[name]
    decoder, examples = module(name, tiny_decoder), make(True)
    whole, loss = gradient(decoder, objective, [examples])
    assert all(g.norm() > 0 for g in whole.values())

    half = len(examples) // 2
    quarter = [examples[i::4] for i in range(4)]
    shuffled = [examples[i] for i in np.random.default_rng(3).permutation(len(examples))]
    for batches in (
        [examples[:half], examples[half:]],
        quarter,
        [shuffled],
        [make(False)],
        [[empty_example()], examples],
    ):
        other, value = gradient(decoder, objective, [b for b in batches if b] if batches[0] else batches)
        assert_same(whole, other)
        assert value == pytest.approx(loss, rel=1e-5)


def test_empty_micro_batch_is_no_nan(tiny_decoder: Decoder) -> None:
    """A rank without work still runs: its loss is 0 and its gradient 0, not NaN."""
    for case, (objective, _) in CASES.items():
        trainee = Trainee(module(case, tiny_decoder), OptimizerConfig(lr=1.0))
        names = dict.fromkeys(("nll", "dpo", "policy", "value", "replay", "ptx", "pairs", "centre", "language"), 1.0)
        loss, _, _ = trainee.loss(pack([empty_example()]), objective, names)
        loss.backward()
        assert float(loss.detach()) == 0
        assert all(bool((p.grad == 0).all()) for p in trainee.decoder.parameters() if p.grad is not None)


def test_bf16_copy_gives_nearly_the_same_gradient(tiny_decoder: Decoder) -> None:
    """The compute copy: gradients arrive in float32 on the parameters, over several micro-batches."""
    objective, make = CASES["likelihood"]
    examples = make(True)
    exact, _ = gradient(tiny_decoder, objective, [examples])
    near, _ = gradient(tiny_decoder, objective, [examples[:4], examples[4:]], torch.bfloat16)
    for name in exact:
        assert near[name].dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(exact[name].flatten(), near[name].flatten(), 0) > 0.99


def test_cut_never_splits_an_example() -> None:
    examples = documents(20)
    for budget in (1, 30, 64, 10_000):
        parts = cut(examples, budget)
        assert [e for part in parts for e in part] == examples
        assert all(len(part) == 1 or sum(e.tokens for e in part) <= budget for part in parts)
    assert len(cut(examples, 10_000)) == 1


def test_weight_on_a_root_first_token_is_refused() -> None:
    bad = Segment(np.array([1, 2], np.int32), np.ones(2, np.float32))
    with pytest.raises(ValueError, match="nothing predicts it"):
        pack([Example((bad,))])
