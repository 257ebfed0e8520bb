"""A proxy: a small model trained on one mixture and measured on every target."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from fledge.core.artefact import Work
from fledge.core.config import Config
from fledge.core.errors import ConfigError
from fledge.core.machine import machine
from fledge.corpus.writing.groups import Group, group_documents
from fledge.corpus.writing.shards import Split, TokenShards
from fledge.model.compiled import compile_model
from fledge.stages import pretrain
from fledge.stages.mixing import MixedOrder
from fledge.stages.pretrain import BitsPerByte
from fledge.stages.shards import require_ids
from fledge.train.mesh import open_mesh

Axis = Literal["sources", "languages", "kinds", "licences"]


class Target(Config):
    """Text that the model shall know: of the shards' held-out split, or of other shards."""

    name: str
    sources: tuple[str, ...] = Field((), description="only these sources of the split; default: all")
    languages: tuple[str, ...] = Field((), description="only these languages; default: all")
    shards: Path | None = Field(None, description="other shards, encoded with the same tokenizer")
    split: Split = Field("held_out", description="train: of other shards, where all of them are the target")
    weight: float = Field(1.0, gt=0, description="in the mean of the targets' bits per byte")

    def matches(self, group: Group) -> bool:
        return (not self.sources or group.source in self.sources) and (
            not self.languages or group.language in self.languages
        )


@dataclass(frozen=True)
class Proxy:
    name: str
    shares: dict[str, float]
    seed: int


def train_proxy(
    config: pretrain.Config, proxy: Proxy, targets: Sequence[Target], work: Work, title: str, tokens: int
) -> dict[str, Any]:
    """Train in ``work.folder/proxy``, from a snapshot there if an earlier process left one, and measure. The weights
    are not kept: what is wanted of a proxy is its losses."""
    began = time.monotonic()
    probes = [(target, measure_of(target, config, tokens)) for target in targets]  # which may refuse: before training
    with open_mesh(machine().device) as mesh:
        training = pretrain.prepare(config, work, mesh)
        loop = training.loop(config, work.folder / "proxy" / proxy.name, title, mesh)
        try:
            summary = loop.run()
            losses = {target.name: probe(loop.trainees)["bits_per_byte"] for target, probe in probes}
        finally:
            compile_model(False)  # the next proxy begins as one that is trained alone
    order = training.source.order
    assert isinstance(order, MixedOrder)
    weights = [target.weight for target in targets]
    return {
        "name": proxy.name, "seed": proxy.seed, "shares": proxy.shares, "losses": losses,
        "loss": float(np.average(list(losses.values()), weights=weights)), "train_loss": summary["loss"],
        "tokens": order.tokens, "epochs": max(row["epochs"] for row in order.account()),
        "seconds": round(time.monotonic() - began, 2),
    }  # fmt: skip


def measure_of(target: Target, config: pretrain.Config, tokens: int) -> BitsPerByte:
    """Bits per byte on about ``tokens`` tokens of documents from everywhere in the target."""
    assert config.tokenizer is not None  # a proxy begins with fresh weights
    if target.split == "train" and target.shards is None:
        raise ConfigError(f"target {target.name!r}: split=train is what the proxies train on; give other shards too")
    if target.shards is not None:
        require_ids(target.shards, config.tokenizer)
    text = TokenShards(target.shards or config.shards, target.split)
    groups, group, _ = group_documents(text, np.maximum(text.lengths, 1))
    chosen = np.flatnonzero(np.isin(group, [place for place, item in enumerate(groups) if target.matches(item)]))
    if not len(chosen):
        there = sorted({item.source for item in groups}), sorted({item.language for item in groups})
        raise ConfigError(
            f"target {target.name!r}: {text.folder} holds no such documents in its {target.split} split (sources "
            f"{there[0]}, languages {there[1]}); without held-out documents, make shards with held_out above 0"
        )
    order = np.random.default_rng(0).permutation(len(chosen))  # the files lie source by source
    return BitsPerByte(text, config.context, tokens, config.loop.micro_tokens, chosen[order].tolist())


def natural_shares(shards: Path, axis: Axis) -> dict[str, int]:
    """Tokens that can be trained on of every name along the axis."""
    text = TokenShards(shards)
    groups, _, _ = group_documents(text, np.maximum(text.lengths - 1, 0))
    found: dict[str, int] = {}
    for group in groups:
        found[group.on(axis)] = found.get(group.on(axis), 0) + group.tokens
    return {name: tokens for name, tokens in sorted(found.items()) if tokens}
