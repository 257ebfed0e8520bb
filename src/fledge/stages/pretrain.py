"""Stage pretrain: token shards -> a base model.

A document is a segment, so documents do not see each other; a document longer than the context is cut into pieces,
each beginning with the last token of the one before, so that every token but a document's first is predicted once.
Pieces, not documents, are shuffled: a long document in consecutive batches makes them all alike.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from fledge.core import config as core_config
from fledge.core.artefact import Work, is_finished, read_manifest
from fledge.core.bench import Bench
from fledge.core.config import build, read_yaml
from fledge.core.errors import ConfigError
from fledge.corpus.writing.mixture import Mixture
from fledge.corpus.writing.shards import TokenShards
from fledge.model import induction, sizes
from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.stages.mixing import MixedOrder, mixed_order
from fledge.stages.shards import require_ids
from fledge.stages.training import EpochOrder, Training, TrainingConfig, load_start, train, training_work, with_context
from fledge.tokenizer.tokenizer import Tokenizer
from fledge.train.batch import Example, cut, pack, single
from fledge.train.estimate import model_shape, training_estimate
from fledge.train.loop import GlobalBatch
from fledge.train.mesh import Mesh
from fledge.train.objective import Likelihood
from fledge.train.trainee import Trainee

ASSUMED_ROWS = 4096  # of the embedding, in a forecast that knows nothing of the tokenizer


class ModelConfig(core_config.Config):
    """``size`` is the dial; ``shape`` changes single fields of it (Hugging Face's names)."""

    size: str = sizes.DEFAULT
    shape: dict[str, Any] = Field(default_factory=dict)
    start: Literal["normal", "induction"] | None = Field(
        default=None,
        description="fresh weights: random, or with heads that copy; default: as the size recommends",
    )

    def build(self, rows: int) -> DecoderConfig:
        """``rows``: of the tokenizer's embedding, padding included; a released size has no fewer than its own."""
        base = sizes.size(self.size, max(rows, sizes.released_rows(self.size)))
        return build(DecoderConfig, {**base.model_dump(), **self.shape}, "model")


class Config(TrainingConfig):
    shards: Path
    tokenizer: Path | None = Field(default=None, description="needed unless `start` is given")
    start: Path | None = Field(
        default=None,
        description="continue from this model instead of fresh weights; needs optimizer.name and .lr, context and "
        "batch_tokens, or a model.size whose advice is taken for them",
    )
    model: ModelConfig = ModelConfig()
    context: int = Field(default=0, ge=0, description="tokens of a segment; 0: what the size recommends")
    tokens: int = Field(
        default=0, ge=0, description="how many to train on, and what fills the last step; 0: `epochs` passes"
    )
    epochs: float = Field(default=1.0, gt=0)
    batch_tokens: int = Field(default=0, ge=0, description="tokens of a step; 0: what the size recommends")
    held_out_tokens: int = Field(default=100_000, ge=0, description="bits per byte are measured on so many")
    mixture: Mixture | None = Field(
        default=None, description="shares of the tokens by source, language and kind; default: as the shards hold them"
    )
    mixture_from: Path | None = Field(
        default=None, description="or a file that holds them, or the folder that `fledge mixture` made"
    )

    @model_validator(mode="before")
    @classmethod
    def _as_the_size_recommends(cls, values: Any) -> Any:
        """Fills in what is not given of context, batch, start of the weights, and optimizer."""
        if not isinstance(values, Mapping):
            return values
        model, optimizer = _plain(values.get("model")), _plain(values.get("optimizer"))
        if not isinstance(model, Mapping) or not isinstance(optimizer, Mapping):
            return values
        if values.get("start") is not None:
            _require_all(values, model, optimizer)
            if "size" not in model:
                return values
        advice = sizes.recommended(str(model.get("size", sizes.DEFAULT)))
        start = {} if values.get("start") is not None else {"start": model.get("start") or advice["start"]}
        return {
            **values,
            "context": values.get("context") or advice["context"],
            "batch_tokens": values.get("batch_tokens") or advice["batch_tokens"],
            "model": {**model, **start},
            "optimizer": _advised(optimizer, advice),
        }

    @model_validator(mode="after")
    def _from_somewhere(self) -> Config:
        if (self.tokenizer is None) == (self.start is None):
            raise ValueError("give either `tokenizer` (a fresh model) or `start` (a model to continue)")
        if self.mixture is not None and self.mixture_from is not None:
            raise ValueError("give either `mixture` or `mixture_from`")
        return self


def _require_all(values: Mapping[str, Any], model: Mapping[str, Any], optimizer: Mapping[str, Any]) -> None:
    """A model that is continued has a shape and weights already, and no size whose advice it could be given."""
    unused = [f"model.{key}" for key in ("shape", "start") if model.get(key)]
    if unused:
        raise ValueError(f"{', '.join(unused)}: has no effect on the model given as `start`; leave it out")
    missing = [f"optimizer.{key}" for key in ("name", "lr") if key not in optimizer]
    missing += [key for key in ("context", "batch_tokens") if not values.get(key)]
    if missing and "size" not in model:
        raise ValueError(f"with `start`, give {', '.join(missing)}; or model.size, whose advice is then taken")


def _plain(value: Any) -> Any:
    """A part of the configuration as it was given: a mapping, a configuration, or nothing."""
    if isinstance(value, core_config.Config):
        return value.model_dump(exclude_unset=True)
    return {} if value is None else value


def _advised(given: Mapping[str, Any], advice: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer with the size's settings where none are given. A rate is its optimizer's own: with another
    optimizer than the recommended one, it must be given."""
    keys = ("name", "lr", "betas", "eps", "weight_decay", "clip")
    settings = {key: advice[key] for key in keys}
    if given.get("name", advice["name"]) != advice["name"]:
        del settings["lr"]
    schedule = {"kind": "cosine", "warmup": advice["warmup"], "floor": advice["min_lr_ratio"]}
    changed = given.get("schedule", {})
    return settings | dict(given) | {"schedule": schedule | changed if isinstance(changed, dict) else changed}


class Documents:
    """Source: pieces of documents in a seeded order, until a batch is full. The last piece is taken whole, so a batch
    has up to a context more than ``batch_tokens``, and a run trains on a little more than ``tokens``. ``mixture``: of
    which documents how much, in a run of ``steps`` steps."""

    def __init__(
        self, shards: TokenShards, context: int, batch_tokens: int, seed: int, mixture: Mixture | None = None,
        steps: int = 0,
    ) -> None:  # fmt: skip
        self.shards, self.context, self.batch_tokens = shards, context, batch_tokens
        # a document of one token has nothing to predict, and no piece
        pieces = -(-(np.asarray(shards.lengths, np.int64) - 1) // (context - 1))
        self.last = np.cumsum(pieces)  # (documents,) pieces up to and with each
        self.order: EpochOrder | MixedOrder
        if mixture is None:
            self.order = EpochOrder(int(self.last[-1]) if len(self.last) else 0, seed)
        else:
            self.order = mixed_order(shards, context, batch_tokens, steps, mixture, seed)

    def next(self, step: int, models: Mapping[str, Trainee]) -> GlobalBatch:
        return GlobalBatch(self.take(self.batch_tokens), {"epoch": self.order.epochs})

    def take(self, tokens: int) -> list[Example]:
        """The next pieces, until there are so many tokens."""
        examples: list[Example] = []
        filled = 0
        while filled < tokens:
            examples.append(self.piece(self.order.take()))
            filled += examples[-1].tokens
        return examples

    def piece(self, index: int) -> Example:
        document = int(np.searchsorted(self.last, index, side="right"))
        before = int(self.last[document - 1]) if document else 0
        begin = (index - before) * (self.context - 1)
        tokens = self.shards.tokens(document)[begin : begin + self.context]
        return document_example(tokens, str(self.shards.info(document)["id"]), begin)

    def state(self) -> dict[str, Any]:
        return self.order.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self.order.load_state(state)


def document_example(tokens: np.ndarray, document: str, offset: int) -> Example:
    weight = np.ones(len(tokens), np.float32)
    weight[0] = 0.0
    return single(tokens, weight, (document, offset))


class BitsPerByte:
    """Held-out text: NLL in bits over its bytes (SPEC F.4). The same documents at every measurement: the first ones, of
    all or of those in ``documents``, up to ``limit`` tokens."""

    def __init__(
        self, shards: TokenShards, context: int, limit: int, micro_tokens: int, documents: Sequence[int] | None = None
    ) -> None:
        self.examples: list[Example] = []
        self.bytes = 0
        self.micro_tokens = micro_tokens
        total = 0
        for index in range(len(shards)) if documents is None else documents:
            tokens = shards.tokens(index)
            if total + len(tokens) > limit and self.examples:
                break
            total += len(tokens)
            self.bytes += int(shards.byte_lengths[index])
            for begin in range(0, max(1, len(tokens) - 1), context - 1):
                piece = tokens[begin : begin + context]
                if len(piece) > 1:
                    self.examples.append(document_example(piece, "", begin))

    def __call__(self, models: Mapping[str, Trainee]) -> dict[str, float]:
        nats = 0.0
        for part in cut(self.examples, self.micro_tokens):
            nats -= float(models["policy"].logp(pack(part, models["policy"].mesh.device)).double().sum())
        return {"bits_per_byte": nats / math.log(2) / max(1, self.bytes)}


def run(config: Config, out: Path, redo: bool = False) -> None:
    with training_work(
        "pretrain", config, out, redo, shards=config.shards, start=config.start, tokenizer=config.tokenizer,
        mixture_from=config.mixture_from,
    ) as (work, mesh):  # fmt: skip
        if work.done:
            return
        training = prepare(config, work, mesh)
        order = training.source.order
        if isinstance(order, MixedOrder) and mesh.first:
            print(*order.describe("planned"), sep="\n", file=sys.stderr, flush=True)
        train(config, work, training, mesh)
        if isinstance(order, MixedOrder) and mesh.first:
            print(*order.describe("tokens"), sep="\n", file=sys.stderr, flush=True)
            work.metrics["mixture"] = order.account()


def prepare(config: Config, work: Work, mesh: Mesh) -> Training[Documents]:
    """The model, fresh or continued, and the shards."""
    require_ids(config.shards, _tokenizer_folder(config))
    shards = TokenShards(config.shards)
    decoder, tokenizer = _start(config)
    held_out = TokenShards(config.shards, split="held_out")
    probe = None
    if len(held_out) and config.held_out_tokens:
        probe = BitsPerByte(held_out, config.context, config.held_out_tokens, config.loop.micro_tokens)
    decoder, steps = with_context(decoder, config.context), steps_of(config, shards)
    return Training(decoder, tokenizer, documents(config, shards), Likelihood(), steps, probe, chat=False)


def steps_of(config: Config, shards: TokenShards) -> int:
    counted = shards.lengths * _repeats(shards) if _is_mixed(config) else shards.lengths
    tokens = config.tokens or round(int(counted.sum()) * config.epochs)
    return max(1, math.ceil(tokens / config.batch_tokens))


def documents(config: Config, shards: TokenShards) -> Documents:
    """The source of batches, at its beginning."""
    mixture = config.mixture if config.mixture_from is None else read_mixture(config.mixture_from)
    if mixture is None and len(shards) and (_repeats(shards) != 1).any():
        warnings.warn(
            f"{shards.folder}: its documents say how often they are to be repeated, which only a mixture heeds: give "
            "mixture={} for the corpus's own shares",
            stacklevel=2,
        )
    return Documents(shards, config.context, config.batch_tokens, config.seed, mixture, steps_of(config, shards))


def _is_mixed(config: Config) -> bool:
    return config.mixture is not None or config.mixture_from is not None


def _repeats(shards: TokenShards) -> np.ndarray:
    repeats: np.ndarray = shards.column("repeat").to_numpy()
    return repeats


def read_mixture(place: Path) -> Mixture:
    """Of a YAML file with the one key ``mixture``, or of a folder with such a file."""
    file = place / "mixture.yaml" if place.is_dir() else place
    values = read_yaml(file)
    if list(values) != ["mixture"] or not isinstance(values["mixture"], dict):
        raise ConfigError(f"{file}: expected the one key `mixture`, with sources, languages or kinds below it")
    return build(Mixture, values["mixture"], str(file))


def _tokenizer_folder(config: Config) -> Path:
    folder = config.start or config.tokenizer
    assert folder is not None  # the configuration has one of them
    return folder


def _start(config: Config) -> tuple[Decoder, Tokenizer]:
    if config.start is not None:
        return load_start(config.start)
    tokenizer = Tokenizer.load(_tokenizer_folder(config))
    shape = config.model.build(tokenizer.embedding_rows)
    if shape.vocab_size < tokenizer.vocab_size:
        raise ConfigError(
            f"model.shape.vocab_size={shape.vocab_size} is less than the tokenizer's {tokenizer.vocab_size}"
        )
    decoder = Decoder(shape)
    decoder.initialise(config.seed)
    if config.model.start == "induction":
        induction.plant(decoder, config.seed)
    return decoder, tokenizer


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    shape = model_shape(bench, config.start) if config.start else config.model.build(_rows(config, bench))
    finished = read_manifest(config.shards)["metrics"] if is_finished(config.shards) else {}

    def known(key: str) -> Any:
        return bench.fact(config.shards, key, finished.get(key))

    tokens = config.tokens or round(float(known("tokens") or 0) * config.epochs)
    length = min(config.context, int(known("mean_tokens") or config.context))
    return training_estimate(bench, shape, tokens, config.batch_tokens, length, config.compute)


def _rows(config: Config, bench: Bench) -> int:
    """Of the embedding: as the tokenizer's stage plans, or as the folder has."""
    folder = _tokenizer_folder(config)
    planned = bench.fact(folder, "vocab_size")
    if planned is None and (folder / "tokenizer.json").exists():
        planned = Tokenizer.load(folder).embedding_rows
    return int(planned or ASSUMED_ROWS)
