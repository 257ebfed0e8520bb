"""The Online Merging Optimizer: the numbers of SPEC I.5, AdamW to the last bit, resume, vocabularies, shards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_train_ranks import torchrun
from torch import Tensor, nn
from train_examples import documents

from fledge.core.errors import ConfigError
from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.model.hf import save_decoder
from fledge.train import merging
from fledge.train.batch import pack
from fledge.train.merging import Merging, MergingConfig, random_mask, task_vectors
from fledge.train.mesh import Mesh
from fledge.train.objective import Likelihood
from fledge.train.optimizer import OptimizerConfig, make_optimizers
from fledge.train.snapshot import load_snapshot, save_snapshot
from fledge.train.trainee import Trainee

NOWHERE = {"base": Path("base"), "sft": Path("sft")}


def config(**changes: Any) -> MergingConfig:
    return MergingConfig.model_validate({**NOWHERE, **changes})


def wrapped(inner: torch.optim.Optimizer, tau: Tensor, **changes: Any) -> Merging:
    (parameter,) = inner.param_groups[0]["params"]
    return Merging(inner, {parameter: tau}, {parameter: "weight"}, config(**changes))


# ------------------------------------------------------------------------------------ the numbers of SPEC I.5

GRADIENT = torch.tensor([0.5, -0.2, 0.1, -0.4], dtype=torch.float64)
TAU = torch.tensor([0.03, 0.01, -0.02, 0.005], dtype=torch.float64)
MASKS = {"delta": torch.tensor([1, 0, 1, 1]).bool(), "tau": torch.tensor([1, 1, 0, 1]).bool()}


@pytest.mark.parametrize(
    ("method", "variant", "want"),
    [
        ("dare", "paper", [0.994, 2.001, 2.991, 4.0095]),
        ("dare", "repo", [0.992, 2.001333, 2.988, 4.012667]),
        ("ties", "paper", [0.991, 2.01, 2.998, 4.009]),
        ("ties", "repo", [1.003, 2.01, 2.998, 4.009]),
    ],
)
def test_one_step(method: str, variant: str, want: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """lr 1e-2 and the first step, so delta is -lr·sign(g); alpha .1; keep 3 of 4. Float64, in which Adam's eps makes
    the smallest gradient's delta the smallest, as the example has it."""
    monkeypatch.setattr(Merging, "_mask", lambda self, parameter, what, step: MASKS[what])
    weight = nn.Parameter(torch.tensor([1.0, 2, 3, 4], dtype=torch.float64))
    optimizer = wrapped(
        torch.optim.AdamW([weight], lr=1e-2, weight_decay=0), TAU, method=method, variant=variant, alpha=0.1, keep=0.75
    )
    weight.grad = GRADIENT.clone()
    optimizer.step()
    assert weight.tolist() == pytest.approx(want, abs=5e-7)


def test_masks() -> None:
    """As many as asked for; others with another key; the same whether drawn whole or in parts."""
    for keep in (1.0, 0.5, 0.01, 5e-4):
        mask = random_mask(1_000_000, keep, key=7, offset=0)
        assert float(mask.double().mean()) == pytest.approx(keep, abs=4 * (keep * (1 - keep) / 1e6) ** 0.5)
    one, other = random_mask(100_000, 0.5, 7, 0), random_mask(100_000, 0.5, 8, 0)
    assert float((one == other).double().mean()) == pytest.approx(0.5, abs=0.01)
    assert float((one[1:] == one[:-1]).double().mean()) == pytest.approx(0.5, abs=0.01)
    whole = random_mask(merging._BLOCK + 5000, 0.3, -3, 0)
    for begin, end in ((0, 100), (999, 3456), (merging._BLOCK - 10, merging._BLOCK + 10)):
        assert torch.equal(whole[begin:end], random_mask(end - begin, 0.3, -3, begin))


def test_largest() -> None:
    """At least one in the paper's variant; all where the authors' code finds that 0 are to be kept."""
    values = torch.tensor([0.1, -3.0, 2.0, -0.5])
    assert merging._largest(values, 0.5, "paper").tolist() == [False, True, True, False]
    assert merging._largest(values, 0.1, "paper").tolist() == [False, True, False, False]
    assert merging._largest(values, 0.1, "repo").all()


# ----------------------------------------------------------------------------------------- against the bare optimizer

MAKES: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-2),
    "muon": lambda p: torch.optim.Muon(p, lr=1e-2),
}


def trained(make: Callable[[Any], torch.optim.Optimizer], steps: int = 7, **changes: Any) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    weight = nn.Parameter(torch.randn(30, 40, generator=generator))
    tau = 0.1 * torch.randn(30, 40, generator=generator)
    optimizer = make([weight])
    used = wrapped(optimizer, tau, **changes) if changes else optimizer
    for _ in range(steps):
        weight.grad = torch.randn(30, 40, generator=generator)
        used.step()
    return weight.detach()


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("changes", [{"method": "dare"}, {"method": "ties"}, {"every": 3}, {"carry": False}])
def test_alpha_0_keep_1_is_the_optimizer_itself(name: str, changes: dict[str, Any]) -> None:
    assert torch.equal(trained(MAKES[name]), trained(MAKES[name], alpha=0.0, keep=1.0, **changes))
    assert not torch.equal(trained(MAKES[name]), trained(MAKES[name], alpha=1e-3, keep=1.0, **changes))


def test_every_merges_the_sum_of_the_steps() -> None:
    """SGD on a gradient that does not depend on the weights: K steps merged at once are one of K times the rate."""
    weight, tau = torch.zeros(2, 3, dtype=torch.float64), torch.full((2, 3), 0.5, dtype=torch.float64)

    def run(rate: float, steps: int, **changes: Any) -> Tensor:
        parameter = nn.Parameter(weight.clone())
        optimizer = wrapped(torch.optim.SGD([parameter], lr=rate), tau, alpha=0.25, **changes)
        for _ in range(steps):
            parameter.grad = torch.ones_like(parameter)
            optimizer.step()
        return parameter.detach()

    torch.testing.assert_close(run(0.1, 2, every=3), torch.full_like(weight, -0.2))  # not merged yet: plain steps
    torch.testing.assert_close(run(0.1, 3, every=3), run(0.3, 1))
    torch.testing.assert_close(run(0.1, 3, every=3), torch.full_like(weight, -0.75 * 0.3 + 0.25 * 0.5))
    torch.testing.assert_close(run(0.1, 4, every=3), run(0.1, 3, every=3) - 0.1)


@pytest.mark.parametrize("carry", [True, False])
def test_what_float32_rounds_away_is_carried(carry: bool) -> None:
    """alpha x tau of 1e-10 on a weight of .02, whose last place is 1.9e-9: a thousand steps are 1e-7, or nothing."""
    weight = nn.Parameter(torch.full((8,), 0.02))
    before = weight.detach().double()
    optimizer = wrapped(torch.optim.SGD([weight], lr=0.0), torch.full((8,), 1e-3), alpha=1e-7, carry=carry)
    for _ in range(1000):
        weight.grad = torch.ones(8)
        optimizer.step()
    drift = (weight.detach().double() - before).tolist()
    assert drift == (pytest.approx([1e-7] * 8, abs=2e-9) if carry else [0.0] * 8)


def test_low_precision_is_refused() -> None:
    weight = nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))
    with pytest.raises(ConfigError, match=r"weight is torch\.bfloat16: its weights must be float32"):
        wrapped(torch.optim.SGD([weight], lr=0.1), torch.zeros(3))


# ----------------------------------------------------------------------------------------------------- from folders


def save(folder: Path, shape: DecoderConfig, seed: int) -> Path:
    decoder = Decoder(shape)
    decoder.initialise(seed)
    save_decoder(decoder, folder)
    return folder


@pytest.fixture
def folders(tiny_decoder: Decoder, tmp_path: Path) -> dict[str, Path]:
    return {name: save(tmp_path / name, tiny_decoder.config, seed) for seed, name in enumerate(("base", "sft"), 1)}


def test_tau_is_sft_minus_base(folders: dict[str, Path], tiny_decoder: Decoder) -> None:
    base, sft = (load_file(folder / "model.safetensors") for folder in folders.values())
    tau = task_vectors(tiny_decoder, config(**folders))
    names = dict(tiny_decoder.named_parameters())
    assert len(tau) == len(names), "a tied embedding once"
    for name, parameter in names.items():
        assert torch.equal(tau[parameter], sft[name] - base[name])
    with pytest.raises(ConfigError, match="no weight differs that is trained here"):
        task_vectors(tiny_decoder, config(base=folders["sft"], sft=folders["sft"]))


def test_rows_of_a_grown_vocabulary_have_no_tau(tiny_decoder: Decoder, tmp_path: Path) -> None:
    shape = tiny_decoder.config
    grown = shape.model_copy(update={"vocab_size": 110})
    places = {"base": save(tmp_path / "base", shape, 1), "sft": save(tmp_path / "sft", grown, 2)}
    model = Decoder(shape.model_copy(update={"vocab_size": 120}))
    tau = task_vectors(model, config(**places))[model.model.embed_tokens.weight]
    assert bool(tau[:97].any(1).all())
    assert not bool(tau[97:].any())
    wider = save(tmp_path / "wider", shape.model_copy(update={"intermediate_size": 64}), 3)
    with pytest.raises(ConfigError, match=r"gate_proj.weight is \[48, 32\] in the model, \[64, 32\] in .*wider"):
        task_vectors(model, config(base=wider, sft=places["sft"]))


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("changes", [{}, {"every": 3}, {"variant": "repo"}, {"method": "ties", "store": "bfloat16"}])
def test_resume_is_exact(
    name: str, changes: dict[str, Any], folders: dict[str, Path], tiny_decoder: Decoder, tmp_path: Path
) -> None:
    """A snapshot in the middle, between two merges where there are steps between, read into a fresh trainee."""
    settings = OptimizerConfig.model_validate(
        {"name": name, "lr": 1e-2, "merging": {**folders, "alpha": 1e-3, "keep": 0.5, **changes}}
    )
    start = tiny_decoder.state_dict()

    def fresh() -> Trainee:
        decoder = Decoder(tiny_decoder.config)
        decoder.load_state_dict(start)
        return Trainee(decoder, settings)

    def advance(trainee: Trainee, begin: int, end: int) -> None:
        objective, examples = Likelihood(), documents(4)
        for step in range(begin, end):
            loss, _, _ = trainee.loss(pack(examples), objective, objective.denominators(examples))
            loss.backward()
            trainee.step(step, 8)

    quiet = fresh()
    advance(quiet, 0, 4)
    save_snapshot(tmp_path / "snapshots", 4, {"policy": quiet}, {}, Mesh())
    advance(quiet, 4, 8)
    resumed = fresh()
    assert load_snapshot(tmp_path / "snapshots", {"policy": resumed}, Mesh()) is not None
    advance(resumed, 4, 8)
    for (key, one), other in zip(quiet.full_state().items(), resumed.full_state().values(), strict=True):
        assert torch.equal(one, other), key


def test_adapters_are_refused(folders: dict[str, Path], tiny_decoder: Decoder) -> None:
    """What is trained is in neither folder."""
    tiny_decoder.requires_grad_(False)
    tiny_decoder.adapter = nn.Linear(4, 4)  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"adapters \(LoRA\) cannot be merged"):
        make_optimizers(tiny_decoder, OptimizerConfig(lr=1e-3, merging=config(**folders)))


@pytest.mark.long
def test_two_ranks_merge_as_one(folders: dict[str, Path], tiny_decoder: Decoder, tmp_path: Path) -> None:
    """Sharded, dare draws the same masks; ties is refused."""
    from ranks_merging import run

    torchrun(2, Path(__file__).with_name("ranks_merging.py"), str(tmp_path), tiny_decoder.config.model_dump_json())
    one = run(tmp_path, tiny_decoder.config, Mesh())
    two = load_file(tmp_path / "merged.safetensors")
    assert (tmp_path / "refused.txt").read_text() == (
        "merging.method=ties: needs whole tensors and does not run sharded; use dare"
    )
    for name, value in one.items():
        assert float((value - two[name]).abs().max()) < 1e-6, name
