"""What `fledge inspect` shows: every token of a record, and which of them are trained on.

Data is hostile here: whatever a terminal could act upon (control and format characters) is shown as an escape.
"""

from __future__ import annotations

import codecs
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fledge.core.errors import DataError
from fledge.core.readers import read_records
from fledge.core.records import Conversation, Preference, Task
from fledge.tokenizer.chat import TOO_LONG, Mask, encode_for_training, encode_prompt, encode_reply, fit
from fledge.tokenizer.inputs import Kind, kind_of, texts
from fledge.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

SHOWN_TOKENS = 1500  # of one part of a record; the rest is counted
TRAINED = ("black on green", "black on bright_green")
CONTEXT = ("", "dim")
CONTROL = "magenta"


@dataclass
class Part:
    """A run of tokens under one heading. ``weights`` 0: context."""

    title: str
    ids: list[int]
    weights: list[float]


@dataclass
class Item:
    """One record as it would be trained on; ``refused`` says why it would not be."""

    parts: list[Part]
    notes: Counter[str] = field(default_factory=Counter)
    refused: str = ""


@dataclass
class Summary:
    """Counts over the whole file. ``skipped``: records refused, by reason; ``bad_rows``: rows that are no record."""

    kind: Kind
    records: int = 0
    tokens: int = 0
    trained: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    bad_rows: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)

    def line(self) -> str:
        share = 100 * self.trained / max(1, self.tokens)
        refused = sum(self.skipped.values())
        text = f"{self.records:,} {self.kind} records: {self.tokens:,} tokens, {self.trained:,} trained ({share:.1f}%)"
        if refused or self.bad_rows:
            reasons = [f"{escape(reason, False)}: {count:,}" for reason, count in self.skipped.most_common()]
            if self.bad_rows:
                reasons.append(f"not readable: {len(self.bad_rows):,}")
            text += f"; {refused + len(self.bad_rows):,} skipped ({'; '.join(reasons)})"
        return text


def inspect_records(
    path: Path,
    tokenizer: Tokenizer,
    *,
    kind: Kind | None = None,
    mask: Mask = "response",
    limit: int = 5,
    ids: bool = False,
    max_tokens: int | None = None,
    console: Console | None = None,
) -> Summary:
    """Show the first ``limit`` records of a file with their tokens and mask, then count over all of it.

    ``kind`` is found from the file's keys where it is None. ``ids`` adds the numbers; ``max_tokens`` is the context
    that records must fit in. Where the console has no colour, trained tokens stand in ⟦ ⟧.
    """
    from rich.console import Console as RichConsole
    from rich.text import Text

    path = Path(path)
    console = console or RichConsole()
    summary = Summary(kind or kind_of(path))
    seen = 0
    for seen, item in enumerate(_items(path, summary, tokenizer, mask, max_tokens), 1):
        if seen <= limit:
            _show(console, item, seen, tokenizer, ids)
        summary.notes.update(item.notes)
        if item.refused:
            summary.skipped[item.refused] += 1
            continue
        summary.records += 1
        summary.tokens += sum(len(part.ids) for part in item.parts)
        summary.trained += sum(weight != 0 for part in item.parts for weight in part.weights)
    if seen > limit:
        console.print(Text(f"... and {seen - limit:,} more records (--limit shows more)", style="dim"))
    for reason in summary.bad_rows[:5]:
        console.print(Text(f"skipped: {escape(reason, False)}", style="red"))
    for note, count in summary.notes.most_common():
        console.print(Text(f"note: {count:,} x {escape(note, False)}", style="yellow"))
    console.print(Text(summary.line(), style="bold"))
    return summary


def _items(path: Path, summary: Summary, tokenizer: Tokenizer, mask: Mask, max_tokens: int | None) -> Iterator[Item]:
    """Records as items; one that cannot be encoded is refused with the error as its reason."""
    kind, bad = summary.kind, summary.bad_rows
    make: Callable[[Any], Item]
    rows: Iterator[Any]
    if kind in ("document", "text"):
        rows = (text for text, _ in texts(path, bad))
        make = partial(document_item, tokenizer)
    elif kind == "conversation":
        rows = read_records(path, Conversation, "skip", bad)
        make = partial(conversation_item, tokenizer, mask=mask, max_tokens=max_tokens)
    elif kind == "preference":
        rows = read_records(path, Preference, "skip", bad)
        make = partial(preference_item, tokenizer, max_tokens=max_tokens)
    else:
        rows = read_records(path, Task, "skip", bad)
        make = partial(task_item, tokenizer, max_tokens=max_tokens)
    if kind not in ("document", "text") and not tokenizer.has_chat:
        raise DataError(
            f"{tokenizer.origin}: this tokenizer has no ChatML tokens, so dialogues cannot be shown with it"
        )
    for row in rows:
        try:
            yield make(row)
        except DataError as error:
            yield Item([], refused=str(error))


def document_item(tokenizer: Tokenizer, text: str) -> Item:
    """A document as pretraining sees it: each token is predicted but the first."""
    ids = [*tokenizer.encode(text), tokenizer.endoftext]
    return Item([Part("text", ids, [0.0] + [1.0] * (len(ids) - 1))])


def conversation_item(tokenizer: Tokenizer, row: Conversation, mask: Mask, max_tokens: int | None) -> Item:
    encoded = encode_for_training(tokenizer, row, mask)
    fitted, reason = fit(encoded, max_tokens)
    shown = fitted or encoded
    return Item([Part("conversation", shown.ids, shown.weights)], Counter(shown.notes), reason)


def preference_item(tokenizer: Tokenizer, row: Preference, max_tokens: int | None) -> Item:
    notes: Counter[str] = Counter()
    prompt = encode_prompt(tokenizer, row.asked, notes)
    replies = [encode_reply(tokenizer, row.chosen), encode_reply(tokenizer, row.rejected)]
    too_long = max_tokens is not None and len(prompt) + max(map(len, replies)) > max_tokens
    parts = [Part("prompt", prompt, [0.0] * len(prompt))]
    parts += [
        Part(title, ids, [1.0] * len(ids)) for title, ids in zip(("chosen", "rejected"), replies, strict=True)
    ]  # fmt: skip
    return Item(parts, notes, TOO_LONG if too_long else "")


def task_item(tokenizer: Tokenizer, row: Task, max_tokens: int | None) -> Item:
    notes: Counter[str] = Counter()
    prompt = encode_prompt(tokenizer, row.messages, notes)
    title = f"task {row.id}, verifier {row.verifier}, answer {row.answer}"
    too_long = max_tokens is not None and len(prompt) >= max_tokens
    return Item([Part(title, prompt, [0.0] * len(prompt))], notes, TOO_LONG if too_long else "")


def escape(text: str, lines: bool = True) -> str:
    """Text in which nothing can act on a terminal. Line breaks stay, marked, where ``lines``."""
    result = []
    for character in text:
        if character == "\n":
            result.append("↵\n" if lines else "↵")
        elif character == "\t":
            result.append("\\t")
        elif unicodedata.category(character) in _UNSAFE:
            result.append(character.encode("unicode_escape", "surrogatepass").decode("ascii"))
        else:
            result.append(character)
    return "".join(result)


_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def pieces(tokenizer: Tokenizer, ids: list[int]) -> Iterator[tuple[int, int, str]]:
    """(start, end, text): tokens, those that share a character together."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    start = 0
    for end, number in enumerate(ids, 1):
        text = decoder.decode(tokenizer.token_bytes(number), final=end == len(ids))
        held = decoder.getstate()[0]
        if text or not held:  # a token that ends one character and begins the next is shown with the first
            yield start, end, text
            start = end


def render_part(tokenizer: Tokenizer, part: Part, ids: bool, colour: bool) -> Text:
    """Coloured text of a part: trained tokens highlighted in two alternating shades, control tokens by name."""
    from rich.text import Text

    result = Text()
    inside = False
    shown = part.ids[:SHOWN_TOKENS]
    for count, (start, end, text) in enumerate(pieces(tokenizer, shown)):
        trained = any(part.weights[start:end])
        if not colour and trained != inside:
            result.append("⟦" if trained else "⟧")
            inside = trained
        control = part.ids[start] in tokenizer.control_ids
        style = TRAINED[count % 2] if trained else CONTROL if control else CONTEXT[count % 2]
        result.append(escape(text), style=style)
        if ids:
            result.append("".join(f"[{number}]" for number in part.ids[start:end]), style="cyan")
    if inside:
        result.append("⟧")
    if len(part.ids) > len(shown):
        result.append(f" ... {len(part.ids) - len(shown):,} more tokens", style="dim")
    return result


def _show(console: Console, item: Item, number: int, tokenizer: Tokenizer, ids: bool) -> None:
    from rich.text import Text

    refused = f" - skipped: {escape(item.refused, False)}" if item.refused else ""
    if not item.parts:
        console.print(Text(f"#{number}{refused}", style="bold red"))
    for part in item.parts:
        trained = sum(weight != 0 for weight in part.weights)
        head = f"#{number} {escape(part.title, False)}: {len(part.ids):,} tokens, {trained:,} trained{refused}"
        console.print(Text(head, style="bold red" if refused else "bold"))
        colour = console.color_system is not None and not console.no_color
        console.print(render_part(tokenizer, part, ids, colour), soft_wrap=True)
    console.print()
