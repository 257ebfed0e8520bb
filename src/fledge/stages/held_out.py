"""A reward model on pairs that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fledge.model.decoder import Decoder
from fledge.reward import quality
from fledge.stages.rankings import Ranked, pairs_of
from fledge.train.batch import pack, shares
from fledge.train.mesh import sum_over_ranks
from fledge.train.objective import Outputs
from fledge.train.scoring import end_scalars
from fledge.train.trainee import Trainee

MOST_TAGS = 100  # in quality.json


class HeldOut:
    """Probe: accuracy, calibration and correlation with length; `measure` gives the whole account."""

    def __init__(self, rows: Sequence[Ranked], micro_tokens: int) -> None:
        self.examples, self.micro_tokens = [row.example for row in rows], micro_tokens
        segments = [segment for example in self.examples for segment in example.segments]
        self.tags = [row.tags for row in rows for _ in row.example.segments]  # of every segment
        rank, first = (
            torch.tensor([segment.values.get(name, 0.0) for segment in segments]) for name in ("rank", "first")
        )
        self.answers = np.flatnonzero(rank.numpy())
        self.better, self.worse = (side.numpy() for side in pairs_of(rank, first))
        self.length = np.array([len(segment.tokens) for segment in segments], np.float64)
        self.worth = np.array([segment.values.get("worth", 0.0) for segment in segments], np.float64)

    def __call__(self, models: Mapping[str, Trainee]) -> dict[str, float]:
        found = self.account(self._rewards(models["policy"]))
        return {f"held_out_{key}": value for key, value in found.items() if isinstance(value, float)}

    def measure(self, decoder: Decoder, dtype: torch.dtype) -> dict[str, Any]:
        """Of a model that is not in training."""
        return self.account(end_scalars(self.examples, decoder, dtype, self.micro_tokens))

    def account(self, rewards: npt.NDArray[np.float32]) -> dict[str, Any]:
        """``rewards`` (S,) of all segments -> floats to log, and tables. The interval of ``accuracy`` is Wilson's, as
        if pairs were independent; those of one prompt are not.

        ``length_correlation``: Spearman's, of an answer's reward with its tokens; ``chosen_longer``: how often the
        better answer is the longer one, which is what a model that only counts tokens would reach.
        """
        every = rewards.astype(np.float64)
        better, worse = every[self.better], every[self.worse]
        hits = quality.hits(better, worse)
        margin = self.worth[self.better] - self.worth[self.worse]
        right = quality.accuracy(better, worse)
        low, high = quality.wilson(right, len(better))
        found: dict[str, Any] = {
            "pairs": float(len(better)),
            "accuracy": right,
            "accuracy_low": low,
            "accuracy_high": high,
            "length_correlation": quality.spearman(every[self.answers], self.length[self.answers]),
            "chosen_longer": quality.accuracy(self.length[self.better], self.length[self.worse]),
            "reward_mean": float(every[self.answers].mean()),
            "reward_deviation": float(every[self.answers].std()),
            **quality.calibration(better, worse),
        }
        if margin.any():
            found["accuracy_by_margin"] = quality.accuracy_by_margin(better, worse, margin)
        else:  # nobody said how much better: by how sure the model is
            found["accuracy_by_gap"] = quality.accuracy_by_margin(better, worse, np.abs(better - worse))
        if any(self.tags):
            found["accuracy_by_tag"] = self._by_tag(hits)
        return found

    def _by_tag(self, hits: npt.NDArray[np.float64]) -> dict[str, dict[str, float]]:
        """The commonest tags; a row of several counts under each."""
        of_tag: dict[str, list[float]] = {}
        for place, hit in zip(self.better, hits, strict=True):
            for tag in self.tags[place]:
                of_tag.setdefault(tag, []).append(float(hit))
        most = sorted(of_tag.items(), key=lambda item: (-len(item[1]), item[0]))[:MOST_TAGS]
        return {tag: {"pairs": float(len(values)), "accuracy": sum(values) / len(values)} for tag, values in most}

    def _rewards(self, model: Trainee) -> npt.NDArray[np.float32]:
        """Of all segments; every rank reads its share of the examples."""
        mesh = model.mesh
        values = np.zeros(len(self.length), np.float32)
        start = np.cumsum([0, *(len(example.segments) for example in self.examples)])
        own = range(mesh.rank, len(self.examples), mesh.world)
        places = np.concatenate([np.arange(start[e], start[e + 1]) for e in own] or [np.empty(0, np.int64)])
        read = [
            model.read(pack(part, mesh.device), Outputs.end_scalars).float().cpu().numpy()
            for part in shares(self.examples, mesh.rank, mesh.world, self.micro_tokens)
        ]
        values[places] = np.concatenate(read)[: len(places)]
        return np.asarray(sum_over_ranks(values.tolist(), mesh), np.float32)
