"""A decoder's body with a scalar head: reward models, which read it at the end token, and value models (SPEC J.1, J.2).

transformers' ``*ForSequenceClassification`` with one label, in and out: the body's names, and ``score.weight`` (1, h)
in the head's place. That format has no bias; differences of rewards, which are all that Bradley-Terry sees, have none
either.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fledge.core.errors import ArtefactError
from fledge.model.adapters import base_of, is_adapter, load_adapters
from fledge.model.config import DecoderConfig
from fledge.model.decoder import Attend, Decoder, Drop, Head
from fledge.model.hf import CLASSIFIERS, config_json, load_config, read_json, read_weights, save_weights, write_json

ScoreStart = Literal["normal", "zero"]


class ScalarDecoder(Decoder):
    """``decoder(tokens (N,), attend, head)``: the head is handed ``score.weight``, and the weight over the vocabulary
    only where ``language_head`` says that an objective wants it beside the scalar."""

    def __init__(self, config: DecoderConfig, language_head: bool = False) -> None:
        super().__init__(config)
        self.language_head = language_head
        if not language_head and not config.tie_word_embeddings:
            del self.lm_head
        self.score = nn.Linear(config.hidden_size, 1, bias=False)

    def forward(self, tokens: Tensor, attend: Attend, head: Head | None = None, drop: Drop | None = None) -> Tensor:
        if head is None:
            return super().forward(tokens, attend, drop=drop)
        rows, weight = self.embed(tokens) if self.language_head else (self.model.embed_tokens(tokens), None)
        return head(self.model(rows, attend, drop), weight, self.score.weight)

    def twin(self) -> ScalarDecoder:
        return ScalarDecoder(self.config, self.language_head)

    @torch.no_grad()
    def start_score(self, start: ScoreStart, seed: int) -> None:
        """Normal with variance 1/(h+1) (Stiennon et al. 2020, 2009.01325, appendix), or 0."""
        size = self.config.hidden_size
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(1, size, generator=generator) / math.sqrt(size + 1)
        self.score.weight.copy_(drawn if start == "normal" else torch.zeros_like(drawn))


def load_scalar(
    folder: Path | str, dtype: torch.dtype = torch.float32, start: ScoreStart = "normal", seed: int = 0,
    language_head: bool = False,
) -> ScalarDecoder:  # fmt: skip
    """The model in a folder: one with a scalar head as it is, or a language model's body with a new head, made by
    ``start`` from ``seed``.

    Raises `ArtefactError` for several labels, and where ``language_head`` is asked of a folder that has none.
    """
    folder = Path(folder)
    config = load_config(folder, scalar=True)
    if is_adapter(folder):
        body = load_scalar(base_of(folder), dtype, start, seed, language_head)
        body = load_adapters(folder, body)
        body.config, body.folder = config, folder
        return body
    trained = has_scalar_head(folder)
    with torch.device("meta"):
        decoder = ScalarDecoder(config, language_head)
    if trained and language_head and not config.tie_word_embeddings:
        raise ArtefactError(
            f"{folder}: a sequence-classification folder whose embeddings are not tied holds no head over the "
            "vocabulary, so no language loss can be added; start from the language model, or leave that loss out"
        )
    ignored = set() if language_head and not config.tie_word_embeddings else {"lm_head.weight"}
    weights = read_weights(decoder, folder, dtype, ignored, set() if trained else {"score.weight"})
    weights.setdefault("score.weight", torch.zeros(1, config.hidden_size, dtype=dtype))
    decoder.load_state_dict(weights, strict=True, assign=True)
    if not trained:
        decoder.start_score(start, seed)
    decoder.folder = folder
    return decoder.requires_grad_(True)


def has_scalar_head(folder: Path | str) -> bool:
    """Whether a folder is a sequence-classification model of one label; several are refused."""
    path = Path(folder) / "config.json"
    values = read_json(path)
    if (values.get("architectures") or [""])[0] not in CLASSIFIERS:
        return False
    names = values.get("id2label")
    labels = len(names) if names else values.get("num_labels", 2)  # transformers' default
    if labels != 1:
        raise ArtefactError(f"{path}: a classifier of {labels} labels; a reward or value model has one")
    return True


def save_scalar(
    decoder: ScalarDecoder, folder: Path | str, pad_token_id: int | None, dtype: torch.dtype = torch.float32
) -> None:
    """Write a folder that ``AutoModelForSequenceClassification.from_pretrained`` loads.

    transformers reads the score at the last token that is not ``pad_token_id``, so this must not be the end token. A
    head over the vocabulary that is not tied is left behind: the format has no place for it.
    """
    config: dict[str, Any] = config_json(decoder.config, {"pad_token_id": pad_token_id}, dtype)
    architecture = {base: name for name, base in CLASSIFIERS.items()}[decoder.config.architecture]
    config |= {"architectures": [architecture], "id2label": {"0": "reward"}, "label2id": {"reward": 0}}
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_json(Path(folder) / "config.json", config)
    save_weights(decoder, Path(folder), dtype, {"lm_head.weight"})
