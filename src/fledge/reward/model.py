"""A reward model's folder: scores of answers, in packed batches that compute a prompt once for all its answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fledge.core.errors import ArtefactError
from fledge.core.machine import compute_dtype, machine
from fledge.core.records import Message
from fledge.model.scalar import has_scalar_head, load_scalar
from fledge.tokenizer.chat import encode_prompt
from fledge.tokenizer.tokenizer import Tokenizer, ids_hash
from fledge.train.batch import Example, Segment
from fledge.train.scoring import end_scalars

Prompt = Sequence[Message] | Sequence[int]
Answer = str | Sequence[int]


class RewardModel:
    """``score([(prompt, answer), ...])``. Prompts are messages or ids, answers texts or ids."""

    def __init__(
        self, folder: Path | str, policy: Path | str | None = None, dtype: str = "auto", micro_tokens: int = 8192
    ) -> None:
        """``policy``: the folder whose ids are handed over. Raises ArtefactError where its tokenizer is another one,
        where the folder is no reward model, or has ids without a row."""
        self.folder, self.micro_tokens = Path(folder), micro_tokens
        if not has_scalar_head(self.folder):
            raise ArtefactError(f"{folder}: is no reward model (a sequence-classification folder with one label)")
        if policy is not None and ids_hash(Path(policy)) != ids_hash(self.folder):
            raise ArtefactError(
                f"{folder}: the reward model has another tokenizer than {policy}: the same ids mean other text; "
                "hand over messages and texts, or train a reward model on that tokenizer"
            )
        self.tokenizer = Tokenizer.load(self.folder)
        self.device, self.dtype = machine().device, compute_dtype(dtype)
        self.decoder = load_scalar(self.folder, self.dtype)
        if self.tokenizer.vocab_size > self.decoder.config.vocab_size:
            raise ArtefactError(
                f"{folder}: the tokenizer has {self.tokenizer.vocab_size} ids, "
                f"but the embedding {self.decoder.config.vocab_size} rows"
            )

    def score(self, items: Sequence[tuple[Prompt, Answer]]) -> npt.NDArray[np.float32]:
        """A reward each, in their order; NaN where prompt and answer do not fit the model's context.

        The reward is read at the end token. An answer that was cut off gets one behind what there is of it, because
        rewards elsewhere were never trained; that it did not end is the caller's to punish.
        """
        limit = self.decoder.config.max_position_embeddings
        groups: dict[tuple[int, ...], list[int]] = {}
        answers: list[list[int]] = []
        rewards = np.full(len(items), np.nan, np.float32)
        for place, (prompt, answer) in enumerate(items):
            ids = self._prompt(prompt)
            answers.append(self._answer(answer))
            if len(ids) + len(answers[-1]) <= limit:
                groups.setdefault(ids, []).append(place)
        examples = [_example(ids, [answers[place] for place in places]) for ids, places in groups.items()]
        scalars = end_scalars(examples, self.decoder, self.dtype, self.micro_tokens, self.device)
        at = 0
        for places in groups.values():
            rewards[places] = scalars[at + 1 : at + 1 + len(places)]  # the first is the prompt's
            at += 1 + len(places)
        return rewards

    def _prompt(self, prompt: Prompt) -> tuple[int, ...]:
        messages = [part for part in prompt if isinstance(part, Message)]
        ids = [part for part in prompt if not isinstance(part, Message)]
        return tuple(encode_prompt(self.tokenizer, messages) if messages else ids)

    def _answer(self, answer: Answer) -> list[int]:
        ends = (self.tokenizer.im_end, self.tokenizer.endoftext)
        ids = self.tokenizer.encode(answer) if isinstance(answer, str) else list(answer)
        while ids and ids[-1] in ends:
            ids.pop()
        return [*ids, self.tokenizer.im_end]


def _example(prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> Example:
    """Nothing in it is trained on."""
    parts = [(prompt, -1), *((answer, 0) for answer in answers)]
    return Example(tuple(Segment(np.asarray(ids, np.int32), np.zeros(len(ids), np.float32), p) for ids, p in parts))
