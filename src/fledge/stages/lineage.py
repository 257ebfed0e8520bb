"""From a token of a training batch back to the document it came from: its URL, its WARC record.

The order of batches is a function of configuration and seed, so the batch of any step is made again from the
artefact's manifest, without the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fledge.core.artefact import read_manifest
from fledge.core.config import build
from fledge.core.errors import ArtefactError, ConfigError
from fledge.corpus import lineage as corpus_lineage
from fledge.corpus.shards import TokenShards
from fledge.stages import dpo, pretrain, sft
from fledge.stages.dialogues import Account, read_conversations, read_preferences
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
    source = makers[stage](manifest)
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
    yield from _document(Path(manifest["paths"]["shards"]), document)


def _document(shards: Path, document: str) -> Iterator[str]:
    corpus = Path(read_manifest(shards)["paths"]["documents"])
    try:
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


def _pretraining(manifest: Mapping[str, Any]) -> Source:
    config = build(pretrain.Config, manifest["config"])
    shards = TokenShards(config.shards)
    return pretrain.Documents(shards, config.context, config.batch_tokens, config.seed)


def _conversations(manifest: Mapping[str, Any]) -> Source:
    config = build(sft.Config, manifest["config"])
    tokenizer = Tokenizer.load(config.model)
    limit = config.max_tokens or _context(config.model)
    examples = read_conversations(config.data, tokenizer, config.mask, limit, config.on_error, Account())
    return sft.Shuffled(examples, config.batch_size, config.seed)


def _pairs(manifest: Mapping[str, Any]) -> Source:
    config = build(dpo.Config, manifest["config"])
    tokenizer = Tokenizer.load(config.model)
    limit = config.max_tokens or _context(config.model)
    examples = read_preferences(config.data, tokenizer, limit, config.on_error, Account())
    return sft.Shuffled(examples, config.batch_size, config.seed)


def _context(model: Path) -> int:
    from fledge.model.hf import load_config

    return load_config(model).max_position_embeddings
