"""The pretraining gradient: text from token shards, trained on beside a stage that learns from rewards (PTX).

InstructGPT (2203.02155, eq. 2) adds it to PPO so that skills which the reward does not speak of are not paid with;
Qwen1 (2309.16609, §3.2.2) finds that it needs far more pretraining than PPO data, that a large coefficient hurts
alignment and a small one does little.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from fledge.core import config as core_config
from fledge.core.errors import DataError
from fledge.corpus.writing.shards import TokenShards
from fledge.model.decoder import Decoder
from fledge.stages.dialogues import beside
from fledge.stages.pretrain import Documents
from fledge.stages.shards import require_ids
from fledge.train.batch import Example

NAME = "ptx"  # of the term, its metric and the mark of its examples


class PtxConfig(core_config.Config):
    """Loss: coefficient x mean negative log-likelihood of a token of text. InstructGPT's coefficient of 27.8 has
    another scale, that of its own batch; on this one .1 to 1 is where to begin (SPEC J.2)."""

    shards: Path = Field(description="token shards that the stage `shards` made with this model's tokenizer")
    coefficient: float = Field(default=0.5, gt=0)
    ratio: float = Field(default=4.0, gt=0, description="tokens of text for each token of the step's dialogues")
    context: int = Field(default=0, ge=0, description="tokens of a piece of text; 0: the model's")


class Ptx:
    """Pieces of text in a seeded order, as many as the ratio asks for."""

    def __init__(self, config: PtxConfig, model: Path, decoder: Decoder, seed: int) -> None:
        require_ids(config.shards, model)
        shards = TokenShards(config.shards)
        if not len(shards):
            raise DataError(f"{config.shards}: holds no document to train on; ptx.shards needs some, or leave ptx out")
        self.ratio = config.ratio
        self.documents = Documents(shards, config.context or decoder.config.max_position_embeddings, 0, seed)

    def next(self, dialogue_tokens: int) -> list[Example]:
        pieces = self.documents.take(round(self.ratio * dialogue_tokens))
        return [beside(piece, NAME) for piece in pieces]

    def state(self) -> dict[str, Any]:
        return self.documents.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self.documents.load_state(state)
