"""From a token of a training batch back to the document it came from: its URL, its WARC record.

The order of batches is a function of configuration and seed, so the batch of any step is made again from the
artefact's manifest, without the model. Data are read where the manifest says that they lay or, if the run was moved
since, beside the artefact; data that are no longer the same are refused, for another batch would come out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fledge.core.artefact import fingerprint, read_manifest
from fledge.core.config import build
from fledge.core.errors import ArtefactError, ConfigError
from fledge.corpus import lineage as corpus_lineage
from fledge.corpus.writing.shards import TokenShards
from fledge.stages import dpo, pretrain, sft
from fledge.stages.dialogues import Account, make_replay, read_preferences
from fledge.tokenizer.tokenizer import Tokenizer
from fledge.train.batch import Example, Segment
from fledge.train.loop import Source


def describe(artefact: Path, step: int, token: int) -> Iterator[str]:
    """Lines about token ``token`` (from 0) of the global batch of step ``step`` (from 1) of a training run."""
    manifest = read_manifest(artefact)
    stage = manifest["stage"]
    makers = {"pretrain": _pretraining, "sft": _conversations, "dpo": _pairs}
    if stage not in makers:
        raise ConfigError(
            f"{artefact}: batches of {stage} cannot be made again without its model; choose {list(makers)}"
        )
    steps = int(manifest["metrics"]["steps"])
    if not 1 <= step <= steps:
        raise ConfigError(f"--step {step}: this run has steps 1 to {steps}")
    source = makers[stage](artefact, manifest)
    for _ in range(step):
        examples = source.next(0, {}).examples
    segment, within = _locate(examples, token)
    tokenizer = Tokenizer.load(artefact)
    shown = tokenizer.decode([int(segment.tokens[within])], skip_control=False)
    yield f"step {step}, token {token} of {sum(e.tokens for e in examples):,}: {shown!r}"
    yield f"  trained   with weight {float(segment.weight[within]):g}"
    document, offset = segment.origin
    if stage != "pretrain":
        yield f"  record    {document}, token {offset + within} of it"
        return
    yield f"  document  {document}, token {offset + within} of it"
    (shards,) = _inputs(artefact, manifest, "shards")
    yield from _document(shards, document)


def _document(shards: Path, document: str) -> Iterator[str]:
    try:
        (corpus,) = _inputs(shards, read_manifest(shards), "documents")
        for line in corpus_lineage.describe(corpus, document):
            yield f"  {line}"
    except ArtefactError as error:
        yield f"  the corpus cannot tell more: {error}"


def _locate(examples: Sequence[Example], token: int) -> tuple[Segment, int]:
    at = token
    for example in examples:
        for segment in example.segments:
            if 0 <= at < len(segment.tokens):
                return segment, at
            at -= len(segment.tokens)
    raise ConfigError(f"--token {token}: the batch has tokens 0 to {sum(e.tokens for e in examples) - 1}")


def _inputs(artefact: Path, manifest: Mapping[str, Any], name: str) -> list[Path]:
    """Where an input of an artefact lies now. Raises `ArtefactError` where it is gone or was changed."""
    places, marks = manifest["paths"][name], manifest["inputs"][name]
    if isinstance(places, str):
        places, marks = [places], [marks]
    return [_found(Path(place), mark, artefact) for place, mark in zip(places, marks, strict=True)]


def _found(path: Path, mark: str, artefact: Path) -> Path:
    beside = Path(os.path.abspath(artefact)).parent
    tried = [path, beside / path.name, beside / path.parent.name / path.name]
    there = [place for place in tried if place.exists()]
    for place in there:
        if fingerprint(place) == mark:
            return place
    if there:
        raise ArtefactError(
            f"{there[0]}: changed since {artefact} was made from it, so its batches cannot be made again"
        )
    raise ArtefactError(
        f"{path}: there is no such input of {artefact} any more, neither there nor in {beside}; put it back"
    )


def _pretraining(artefact: Path, manifest: Mapping[str, Any]) -> Source:
    config = build(pretrain.Config, manifest["config"])
    (shards,) = _inputs(artefact, manifest, "shards")
    if config.mixture_from is not None:
        (place,) = _inputs(artefact, manifest, "mixture_from")
        config = config.model_copy(update={"mixture_from": place})
    return pretrain.documents(config, TokenShards(shards))


def _conversations(artefact: Path, manifest: Mapping[str, Any]) -> Source:
    config = build(sft.Config, manifest["config"])
    tokenizer, limit = _reading(artefact, config.max_tokens)
    data = _inputs(artefact, manifest, "data")
    return sft.conversations(config, data, tokenizer, limit, Account())


def _pairs(artefact: Path, manifest: Mapping[str, Any]) -> Source:
    config = build(dpo.Config, manifest["config"])
    tokenizer, limit = _reading(artefact, config.max_tokens)
    data = _inputs(artefact, manifest, "data")
    examples = read_preferences(data, tokenizer, limit, config.on_error, Account())
    replay = None
    if config.replay is not None:
        again = config.replay.model_copy(update={"data": tuple(_inputs(artefact, manifest, "replay"))})
        replay = make_replay(again, tokenizer, limit, config.on_error, config.seed + 1, Account())
    return dpo.Pairs(sft.Shuffled(examples, config.batch_size, config.seed), replay)


def _reading(artefact: Path, max_tokens: int) -> tuple[Tokenizer, int]:
    """Tokenizer and context that the data were read with. The model that was made has them from the one it began
    from, which need not be there any more."""
    from fledge.model.hf import load_config

    return Tokenizer.load(artefact), max_tokens or load_config(artefact).max_position_embeddings
