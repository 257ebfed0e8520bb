"""Conversations and preferences as examples, what was left out and why, and replay of dialogues in later stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import Field

from fledge.core import config as core_config
from fledge.core.artefact import Work
from fledge.core.bench import Bench
from fledge.core.errors import ConfigError, DataError
from fledge.core.readers import read_placed, write_jsonl
from fledge.core.records import Conversation, Message, Preference, Ranking, Record, Task
from fledge.stages.training import EpochOrder
from fledge.tokenizer.chat import Mask, encode_for_training, encode_prompt, encode_reply, fit
from fledge.tokenizer.tokenizer import Tokenizer
from fledge.train.batch import Example, PackedBatch, Segment, single
from fledge.train.estimate import mean_tokens
from fledge.train.objective import Objective, Outputs, Terms

OnError = Literal["fail", "skip"]
R = TypeVar("R", bound=Record)
T = TypeVar("T")


class Account:
    """What was read, used, left out and why, changed and how. Written beside the output, so nothing is silent."""

    def __init__(self) -> None:
        self.read = self.used = 0
        self.reasons: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.rows: list[dict[str, str]] = []

    def skip(self, place: str, reason: str) -> None:
        self.reasons[reason] += 1
        self.rows.append({"place": place, "reason": reason})

    def summary(self) -> dict[str, Any]:
        return {
            "rows_read": self.read,
            "rows_used": self.used,
            "rows_skipped": dict(self.reasons),
            "notes": dict(self.notes),
        }

    def record(self, work: Work, part: str = "") -> None:
        """Counts into the manifest's metrics (under ``part``), rows left out into ``skipped.jsonl`` or
        ``skipped-PART.jsonl``."""
        if part:
            work.metrics[part] = self.summary()
        else:
            work.metrics |= self.summary()
        if self.rows:
            write_jsonl(work.folder / (f"skipped-{part}.jsonl" if part else "skipped.jsonl"), self.rows)


def read_usable(
    paths: Sequence[Path], kind: type[R], tokenizer: Tokenizer, on_error: OnError, account: Account,
    use: Callable[[str, R], T | None],
) -> list[T]:  # fmt: skip
    """What ``use(place, record)`` makes of the records of files; None where it has left the record out itself.

    A record that it refuses (`DataError`, `ConfigError`) is treated like a row that cannot be read: an error with
    its place or, with ``on_error="skip"``, counted with the reason.
    """
    encode_prompt(tokenizer, [Message(role="user", content="?")])  # a tokenizer without a chat format: no row's fault
    result = []
    for path in paths:
        bad: list[str] = []
        for place, record in read_placed(path, kind, on_error, bad):
            try:
                made = use(place, record)
            except (DataError, ConfigError) as error:
                if on_error == "fail":
                    counts = "(on_error=skip counts such rows and goes on)"
                    raise type(error)(f"{place}: {error}\n  {counts}") from None
                bad.append(f"{place}: {error}")
                continue
            account.read += 1
            if made is not None:
                account.used += 1
                result.append(made)
        _count_bad(account, bad)
    if not result:
        what = {Conversation: "conversation", Preference: "pair", Ranking: "pair or ranking", Task: "task"}[kind]
        first = "; first: {place}: {reason}".format_map(account.rows[0]) if account.rows else ""
        raise DataError(f"{', '.join(map(str, paths))}: no usable {what}; left out: {dict(account.reasons)}{first}")
    return result


def read_conversations(
    paths: Sequence[Path], tokenizer: Tokenizer, mask: Mask, max_tokens: int, on_error: OnError, account: Account
) -> list[Example]:
    """One example a conversation. Raises `DataError` where none is usable."""

    def use(place: str, record: Conversation) -> Example | None:
        encoded = encode_for_training(tokenizer, record.messages, mask)
        kept, reason = fit(encoded, max_tokens)
        if kept is None:
            account.skip(place, reason)
            return None
        account.notes.update(kept.notes)
        return single(kept.ids, kept.weights, (place, 0))

    return read_usable(paths, Conversation, tokenizer, on_error, account, use)


def read_preferences(
    paths: Sequence[Path], tokenizer: Tokenizer, max_tokens: int, on_error: OnError, account: Account
) -> list[Example]:
    """One example a pair: the prompt, and both answers as its children (``side`` +1 and -1)."""

    def use(place: str, record: Preference) -> Example | None:
        notes: Counter[str] = Counter()
        prompt = encode_prompt(tokenizer, record.asked, notes)
        chosen, rejected = (encode_reply(tokenizer, text) for text in (record.chosen, record.rejected))
        if len(prompt) + max(len(chosen), len(rejected)) > max_tokens:
            account.skip(place, "longer than the context")
            return None
        if chosen == rejected:
            account.skip(place, "both answers have the same ids")
            return None
        account.notes.update(notes)
        return pair_example(prompt, chosen, rejected, place)

    return read_usable(paths, Preference, tokenizer, on_error, account, use)


def pair_example(prompt: Sequence[int], chosen: Sequence[int], rejected: Sequence[int], origin: str) -> Example:
    segments = [prompt_segment(prompt, (origin, 0))]
    for answer, side in ((chosen, 1.0), (rejected, -1.0)):
        tokens = np.asarray(answer, np.int32)
        values = {"side": side}
        segments.append(
            Segment(tokens, np.ones(len(tokens), np.float32), 0, values=values, origin=(origin, len(prompt)))
        )
    return Example(tuple(segments))


def prompt_segment(prompt: Sequence[int], origin: tuple[str, int], **values: float) -> Segment:
    tokens = np.asarray(prompt, np.int32)
    return Segment(tokens, np.zeros(len(tokens), np.float32), values=values, origin=origin)


def _count_bad(account: Account, bad: Iterable[str]) -> None:
    for message in bad:
        account.read += 1
        account.reasons["malformed"] += 1
        account.rows.append({"place": message.partition(": ")[0], "reason": message.partition(": ")[2]})


class ReplayConfig(core_config.Config):
    """Dialogues trained on beside a later stage's own loss, so that it does not cost what was learned (the
    pretraining gradient of InstructGPT and Qwen1, SPEC J.2, on dialogues)."""

    data: tuple[Path, ...]
    coefficient: float = Field(default=1.0, gt=0)
    batch_size: int = Field(default=32, gt=0, description="dialogues a step")


class Replay:
    """Gives so many dialogues a step, in a seeded order."""

    def __init__(self, examples: Sequence[Example], batch_size: int, seed: int) -> None:
        self.batch_size = batch_size
        self.examples = [beside(example, "replay") for example in examples]
        self.order = EpochOrder(len(examples), seed)

    def next(self) -> list[Example]:
        return [self.examples[i] for i in self.order.take_many(self.batch_size)]


def beside(example: Example, name: str) -> Example:
    """An example of a `WithReplay` of this name. It is the policy's alone."""
    return Example(tuple(segment.with_values(**{name: 1.0}) for segment in example.segments), module="policy")


class WithReplay:
    """An objective plus coefficient x mean negative log-likelihood of the examples that are `beside` its own."""

    def __init__(self, inner: Objective, coefficient: float, name: str = "replay") -> None:
        self.inner, self.coefficient, self.name = inner, coefficient, name

    def denominators(self, examples: Sequence[Example]) -> dict[str, float]:
        own = [e for e in examples if not e.segments[0].values.get(self.name)]
        replayed = [e for e in examples if e.segments[0].values.get(self.name)]
        weight = float(sum(s.weight.sum() for e in replayed for s in e.segments))
        # a step in which the policy is frozen comes without
        return {**self.inner.denominators(own), **({self.name: weight / self.coefficient} if replayed else {})}

    def terms(self, batch: PackedBatch, outputs: Outputs, module: str) -> Terms:
        terms = self.inner.terms(batch, outputs, module)
        flag = batch.value(self.name)[batch.segment]
        if not bool(flag.any()):
            return terms
        weight = flag * batch.weight
        logp = outputs.logp()
        total = -(logp * weight).sum()
        terms.sums[self.name] = total
        terms.metrics[f"{self.name}_nll"] = (total.detach(), float(weight.sum()))
        return terms


def read_replay(
    config: ReplayConfig | None, tokenizer: Tokenizer, max_tokens: int, on_error: OnError, seed: int, work: Work
) -> Replay | None:
    """The replay that a stage's configuration asks for; what was read and left out is recorded as ``replay``."""
    if config is None:
        return None
    account = Account()
    replay = make_replay(config, tokenizer, max_tokens, on_error, seed, account)
    account.record(work, "replay")
    return replay


def make_replay(
    config: ReplayConfig, tokenizer: Tokenizer, max_tokens: int, on_error: OnError, seed: int, account: Account
) -> Replay:
    dialogues = read_conversations(config.data, tokenizer, "response", max_tokens, on_error, account)
    return Replay(dialogues, config.batch_size, seed)


def replay_tokens(config: ReplayConfig | None, bench: Bench) -> float:
    """Tokens a step, for the forecast."""
    return 0.0 if config is None else config.batch_size * mean_tokens(bench, config.data)


def replay_state(replay: Replay | None) -> int:
    return replay.order.taken if replay is not None else 0


def restore_replay(replay: Replay | None, state: Mapping[str, Any]) -> None:
    if replay is not None:
        replay.order.taken = int(state["replay"])
