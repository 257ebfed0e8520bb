"""Stage ``mixture``: which shares of the sources teach a target most, found with small models (RegMix, SPEC E.6).

Proxy models of the trainer itself are trained on mixtures around the natural one, all from the same weights, and each
is measured on held-out text of the target. A regression from mixture to loss is fitted on most of them and judged by
the rank correlation on the others; then it judges many mixtures that were not tried, and the mean of the best is the
answer: ``mixture.yaml``, which pretraining takes as it is. At last the answer and the natural mixture are trained with
other seeds, so that what is gained is measured and not only predicted.

Every proxy that is done is a file in ``losses/``, and the one in training has snapshots, so a run that was killed goes
on where it was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from fledge.core import config as core_config
from fledge.core.artefact import Work, is_finished, produce, read_manifest, write_json
from fledge.core.bench import Bench
from fledge.core.config import build
from fledge.core.errors import ConfigError
from fledge.core.progress import duration
from fledge.corpus.writing.mixture import Mixture
from fledge.scaling import regmix
from fledge.scaling.proxies import Axis, Proxy, Target, natural_shares, train_proxy
from fledge.stages import pretrain
from fledge.stages.pretrain import ModelConfig
from fledge.train.estimate import Compute, training_estimate

LOSSES = "losses"
_FEWEST = 8  # proxies: fewer cannot be fitted and judged


class Config(core_config.Config):
    """Configuration of the stage."""

    shards: Path
    tokenizer: Path
    axis: Axis = Field("sources", description="what is mixed")
    names: tuple[str, ...] = Field((), description="of the axis, those that are mixed; default: all there are")
    targets: tuple[Target, ...] = Field(
        (Target(name="held out"),), min_length=1, description="held-out text on which the loss shall be least"
    )
    model: ModelConfig = Field(ModelConfig(size="nano"), description="of a proxy")
    proxies: int = Field(40, ge=_FEWEST, description="mixtures that are tried; RegMix: 512")
    judged: float = Field(0.25, gt=0, lt=1, description="share of the proxies that judge the regression")
    steps: int = Field(200, ge=1, description="of a proxy; RegMix: 1,000")
    batch_tokens: int = Field(2048, gt=0, description="of a proxy's step")
    context: int = Field(128, gt=1)
    tokens: int = Field(
        0, ge=0, description="of the run that the mixture is for, which bounds what may be repeated; 0: one pass"
    )
    max_epochs: float = Field(4.0, gt=0, description="no document is read more often in that run")
    least: float = Field(2e-4, gt=0, lt=1, description="least share of a mixture that is tried (RegMix's)")
    regression: Literal["ridge", "lightgbm"] = Field("ridge", description="lightgbm is RegMix's, for hundreds")
    simulated: int = Field(100_000, ge=1, description="mixtures that the regression judges")
    averaged: int = Field(128, ge=1, description="of these, how many best ones are averaged")
    confirmed: int = Field(
        2, ge=0, description="seeds with which the answer and the natural mixture are trained at last"
    )
    held_out_tokens: int = Field(50_000, gt=0, description="of each target")
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 0

    @field_validator("targets")
    @classmethod
    def _are_different(cls, targets: tuple[Target, ...]) -> tuple[Target, ...]:
        names = [target.name for target in targets]
        if len(set(names)) < len(names):
            raise ValueError(f"two targets have one name: {', '.join(names)}")
        return targets


def run(config: Config, out: Path, redo: bool = False) -> None:
    """Find the mixture; a finished folder that matches is left as it is."""
    inputs: dict[str, Path | Sequence[Path]] = {"shards": config.shards, "tokenizer": config.tokenizer}
    for number, target in enumerate(config.targets):
        if target.shards is not None:
            inputs[f"target_{number}"] = target.shards
    making = produce(
        out, kind="mixture", stage="mixture", config=config, inputs=inputs, seed=config.seed, redo=redo
    )  # fmt: skip
    with making as work:
        if not work.done:
            _find(config, work)


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    """Proxies by what a step costs on this machine; the regression is nothing beside them."""
    finished = read_manifest(config.shards)["metrics"] if is_finished(config.shards) else {}
    rows = int(bench.fact(config.tokenizer, "vocab_size", 0) or finished.get("vocab_size") or pretrain.ASSUMED_ROWS)
    shape = config.model.build(rows)
    length = min(config.context, int(bench.fact(config.shards, "mean_tokens", finished.get("mean_tokens", 1e9))))
    runs = config.proxies + 2 * config.confirmed
    tokens = runs * config.steps * config.batch_tokens
    compute = Compute(config.dtype, "muon", "off")
    return training_estimate(bench, shape, tokens, config.batch_tokens, length, compute) | {"proxies": runs}


def _find(config: Config, work: Work) -> None:
    names, prior, most = _what_is_mixed(config)
    mixtures = _mixtures(config, prior, most)
    rows = _train_all(config, work, names, mixtures)
    losses = np.array([row["loss"] for row in rows])
    apart = max(4, round(config.judged * config.proxies))  # the last ones: the order of mixtures is random
    regression = _fit(config, mixtures[:-apart], losses[:-apart])
    predicted = regression(mixtures)
    rho = regmix.spearman(predicted[-apart:], losses[-apart:])
    low, high = regmix.spearman_interval(rho, apart)
    regression = _fit(config, mixtures, losses)  # judged; now all that was measured may help
    generator = np.random.default_rng([config.seed, 2])
    simulated = regmix.sample(prior, config.simulated, config.least, most, generator)
    best = _rounded(regmix.best_of(regression, simulated, config.averaged))
    confirmed = _confirm(config, work, names, prior, best)
    fragment = {config.axis: dict(zip(names, best.tolist(), strict=True)), "max_epochs": config.max_epochs}
    build(Mixture, fragment)  # what is written can be read
    result = {
        "axis": config.axis, "names": names, "natural": prior.tolist(), "found": best.tolist(), "most": most.tolist(),
        "spearman": rho, "spearman_interval": [low, high], "judged": apart, "regression": config.regression,
        "predicted_natural": float(regression(prior[None])[0]), "predicted_found": float(regression(best[None])[0]),
        "measured_natural": losses[0], "best_tried": dict(zip(names, mixtures[losses.argmin()].tolist(), strict=True)),
        "best_tried_loss": float(losses.min()), "confirmed": confirmed,
        "by_target": _by_target(config, names, mixtures, rows, simulated),
    }  # fmt: skip
    write_json(work.folder / "result.json", {**result, "proxies": rows, "predicted": predicted.tolist()})
    (work.folder / "mixture.yaml").write_text(_fragment(config, fragment, rho, low, high, confirmed), encoding="utf-8")
    from fledge.scaling.plots import draw

    draw(result, rows, predicted, apart, work.folder / "mixture.svg")
    work.transient |= {LOSSES, "proxy"}
    work.metrics |= {
        **result,
        "proxies": len(rows),
        "seconds_of_proxies": round(sum(row["seconds"] for row in rows), 1),
    }
    _tell(result, work.out)


def _what_is_mixed(config: Config) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, natural shares and greatest shares, so that no document of the planned run is read too often."""
    there = natural_shares(config.shards, config.axis)
    unknown = [name for name in config.names if name not in there]
    if unknown:
        raise ConfigError(f"names: the shards hold no {unknown[0]!r} among their {config.axis} (known: {list(there)})")
    names = list(config.names or there)
    if len(names) < 2:
        raise ConfigError(f"axis={config.axis}: only {names} is there, so there is nothing to mix")
    tokens = np.array([there[name] for name in names], np.float64)
    planned = max(config.tokens or tokens.sum(), config.steps * config.batch_tokens)
    return names, tokens / tokens.sum(), np.minimum(1.0, config.max_epochs * tokens / planned)


def _mixtures(config: Config, prior: np.ndarray, most: np.ndarray) -> np.ndarray:
    """(proxies, k) what is tried: the natural mixture first, which all others are compared with."""
    generator = np.random.default_rng([config.seed, 1])
    drawn = regmix.sample(prior, config.proxies - 1, config.least, most, generator)
    return np.concatenate([prior[None], drawn])


def _fit(config: Config, mixtures: np.ndarray, losses: np.ndarray) -> regmix.Regression:
    if config.regression == "lightgbm":
        return regmix.fit_lightgbm(mixtures, losses, config.seed)
    return regmix.fit_ridge(mixtures, losses)


def _train_all(config: Config, work: Work, names: Sequence[str], mixtures: np.ndarray) -> list[dict[str, Any]]:
    proxies = [
        Proxy(f"{number:04d}", dict(zip(names, shares.tolist(), strict=True)), config.seed)
        for number, shares in enumerate(mixtures)
    ]
    return _train(config, work, proxies, "proxy")


def _train(config: Config, work: Work, proxies: Sequence[Proxy], title: str) -> list[dict[str, Any]]:
    """Losses of every proxy; those that an earlier process has trained are read."""
    (work.folder / LOSSES).mkdir(exist_ok=True)
    rows: list[dict[str, Any]] = []
    taken: list[float] = []  # seconds, of this process
    for number, proxy in enumerate(proxies, 1):
        place = work.folder / LOSSES / f"{proxy.name}.json"
        if not place.exists():
            left = f", {duration(float(np.median(taken)) * (len(proxies) - number + 1))} left" if taken else ""
            shown = f"{title} {number} of {len(proxies)}{left}"
            row = train_proxy(settings(config, proxy), proxy, config.targets, work, shown, config.held_out_tokens)
            write_json(place, row)
            shutil.rmtree(work.folder / "proxy", ignore_errors=True)
            taken.append(row["seconds"])
        rows.append(json.loads(place.read_text(encoding="utf-8")))
    return rows


def settings(config: Config, proxy: Proxy) -> pretrain.Config:
    """Of a proxy's training. It sees so little that nothing of a real corpus is repeated; where a laptop's is so small
    that it would be, the shares are kept and the repetition is counted."""
    return build(
        pretrain.Config,
        {
            "shards": config.shards, "tokenizer": config.tokenizer, "model": config.model.plain(),
            "context": config.context, "batch_tokens": config.batch_tokens,
            "tokens": config.steps * config.batch_tokens, "dtype": config.dtype, "compile": "off",
            "held_out_tokens": 0, "seed": proxy.seed,
            "mixture": {config.axis: proxy.shares, "max_epochs": 1e9, "floor": 0},
            "loop": {"tensorboard": False, "snapshot_seconds": 30.0, "micro_tokens": max(8192, config.batch_tokens)},
        },
        "a proxy",
    )  # fmt: skip


def _confirm(
    config: Config, work: Work, names: Sequence[str], prior: np.ndarray, best: np.ndarray
) -> dict[str, list[float]]:
    """Measured losses of the natural mixture and of the answer, with seeds that no proxy had."""
    found: dict[str, list[float]] = {}
    for label, shares in (("natural", prior), ("found", best)):
        pairs = dict(zip(names, shares.tolist(), strict=True))
        seeds = range(config.seed + 1, config.seed + 1 + config.confirmed)
        proxies = [Proxy(f"{label}-{seed}", pairs, seed) for seed in seeds]
        rows = _train(config, work, proxies, f"{label} shares, seed")
        found[label] = [row["loss"] for row in rows]
    return found


def _by_target(
    config: Config, names: Sequence[str], mixtures: np.ndarray, rows: Sequence[dict[str, Any]], simulated: np.ndarray
) -> dict[str, dict[str, Any]]:
    """What each target alone would ask for: the best mixture is only ever the best for something."""
    if len(config.targets) < 2:
        return {}
    result = {}
    for target in config.targets:
        regression = _fit(config, mixtures, np.array([row["losses"][target.name] for row in rows]))
        best = _rounded(regmix.best_of(regression, simulated, config.averaged))
        result[target.name] = {"found": dict(zip(names, best.tolist(), strict=True))}
    return result


def _rounded(shares: np.ndarray) -> np.ndarray:
    """To four digits that sum to 1: the largest takes the rest."""
    result: np.ndarray = np.round(shares, 4)
    result[result.argmax()] += 1 - result.sum()
    return np.round(result, 4)


def _fragment(
    config: Config, fragment: dict[str, Any], rho: float, low: float, high: float, confirmed: dict[str, list[float]]
) -> str:
    import io

    from ruamel.yaml import YAML

    targets = ", ".join(target.name for target in config.targets)
    lines = [
        f"# Shares of the tokens for pretraining, found for the target: {targets}.".replace("\n", " "),
        f"# {config.proxies} proxies of {config.steps} steps; Spearman {rho:.2f} ({low:.2f} to {high:.2f}) on mixtures "
        "that the regression had not seen.",
    ]
    if confirmed["found"]:
        before, after = (float(np.mean(confirmed[key])) for key in ("natural", "found"))
        lines.append(
            f"# Bits per byte of a proxy, {config.confirmed} seeds: natural {before:.4f}, with these {after:.4f}."
        )
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    buffer = io.StringIO()
    yaml.dump({"mixture": fragment}, buffer)
    return "\n".join(lines) + "\n" + buffer.getvalue()


def _tell(result: dict[str, Any], out: Path) -> None:
    from fledge.corpus.writing.groups import printable

    low, high = result["spearman_interval"]
    print(
        f"mixture: Spearman {result['spearman']:.3f} ({low:.3f} to {high:.3f}) of predicted and measured loss on "
        f"{result['judged']} mixtures that the regression had not seen"
    )
    if high < 0.9:
        print("  weak: SPEC asks for 0.9. More proxies, more steps of each, or a target that the sources tell apart")
    for name, natural, found in zip(result["names"], result["natural"], result["found"], strict=True):
        print(f"  {printable(name):<24.24}  natural {natural:>7.2%}  found {found:>7.2%}")
    for label, losses in result["confirmed"].items():
        if losses:
            print(
                f"  measured, {label:<8} {np.mean(losses):.4f} bits per byte ({', '.join(f'{x:.4f}' for x in losses)})"
            )
    print(f"  for pretraining: mixture={out / 'mixture.yaml'}", flush=True)
