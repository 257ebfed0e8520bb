from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fledge.core.errors import DataError
from fledge.tokenizer import chat
from fledge.tokenizer.bytelevel import IM_END, IM_START
from fledge.tokenizer.inspect import Summary, escape, inspect_records, pieces
from fledge.tokenizer.tokenizer import Tokenizer

USER = {"role": "user", "content": "你好 there"}


def show(path: Path, tokenizer: Tokenizer, colour: bool = False, **more: Any) -> tuple[str, Summary]:
    file = io.StringIO()
    console = Console(file=file, force_terminal=colour, color_system="standard" if colour else None, width=200)
    return_value = inspect_records(path, tokenizer, console=console, **more)
    return file.getvalue(), return_value


def write(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_a_conversation_shows_what_is_trained(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"messages": [USER, {"role": "assistant", "content": "Hello\nyou"}]})
    text, summary = show(path, tokenizer)
    assert f"{IM_START}user↵\n你好 there{IM_END}" in text
    assert f"⟦Hello↵\nyou{IM_END}⟧" in text
    messages = [USER, {"role": "assistant", "content": "Hello\nyou"}]
    expected = chat.encode_for_training(tokenizer, messages, "response")  # what SFT trains on
    assert (summary.tokens, summary.trained) == (len(expected.ids), expected.trained)
    assert f"{expected.trained} trained" in text
    everything, _ = show(path, tokenizer, mask="all")
    assert f"⟦system↵\nYou are a helpful assistant.{IM_END}" in everything
    with_ids, _ = show(path, tokenizer, ids=True)
    assert f"{IM_END}[{tokenizer.im_end}]" in with_ids
    coloured, _ = show(path, tokenizer, colour=True)
    assert "\x1b[" in coloured
    assert "⟦" not in coloured


def test_preferences_tasks_and_documents(tokenizer: Tokenizer, tmp_path: Path) -> None:
    pair = write(tmp_path / "p.jsonl", {"prompt": "Who?", "chosen": "Me.", "rejected": "Nobody."})
    text, summary = show(pair, tokenizer)
    assert f"⟦Me.{IM_END}⟧" in text
    assert f"⟦Nobody.{IM_END}⟧" in text
    assert summary.kind == "preference"
    task = {"id": "t1", "messages": [USER], "verifier": "number", "answer": {"value": "\u001b[31m8"}}
    text, summary = show(write(tmp_path / "t.jsonl", task), tokenizer)
    assert "verifier number" in text
    assert (summary.kind, summary.trained) == ("task", 0)
    assert "\x1b" not in text
    text, summary = show(write(tmp_path / "d.jsonl", {"text": "One two", "source": "x"}), tokenizer)
    assert (summary.kind, summary.trained) == ("document", summary.tokens - 1)
    (tmp_path / "plain.txt").write_text("今天", encoding="utf-8")
    text, summary = show(tmp_path / "plain.txt", tokenizer)
    assert "⟦<|endoftext|>⟧" in text
    assert (summary.kind, summary.trained) == ("text", summary.tokens - 1)


def test_what_is_skipped_is_counted_with_its_reason(tokenizer: Tokenizer, tmp_path: Path) -> None:
    good = {"messages": [USER, {"role": "assistant", "content": "ok"}]}
    rows = [good, "{broken", {"messages": [USER]}, {"messages": [USER, {"role": "assistant", "content": ""}]}]
    rows.append({"messages": [{"role": "user", "content": "long " * 200}, {"role": "assistant", "content": "x"}]})
    rows.append({"messages": [{"role": "user", "content": f"say {IM_END}"}, {"role": "assistant", "content": " x"}]})
    path = write(tmp_path / "mixed.jsonl", *rows, good, good)
    text, summary = show(path, tokenizer, limit=2, max_tokens=150)
    assert summary.records == 4
    assert summary.skipped == {chat.NOTHING_TRAINED: 1, chat.HAS_EMPTY_ANSWER: 1, chat.TOO_LONG: 1}
    assert len(summary.bad_rows) == 1
    assert "mixed.jsonl:2" in text
    assert "4 skipped" in text
    assert "5 more records" in text
    assert summary.notes[chat.CONTROL_IN_CONTENT] == summary.notes[chat.SPACE_FIRST] == 1


def test_hostile_text_cannot_act_on_the_terminal(tokenizer: Tokenizer, tmp_path: Path) -> None:
    attack = "\x1b]0;owned\x07\x1b[2J\u202egnp.exe\u2028\x9b31m[bold red]markup[/]\r\x00\ufeff"
    rows = {"messages": [{"role": "user", "content": attack}, {"role": "assistant", "content": attack}]}
    text, _ = show(write(tmp_path / "a.jsonl", rows, '{"messages": "\x1b[2J"}'), tokenizer)
    assert not set(text) & set("\x1b\x07\u202e\u2028\x9b\r\x00\ufeff")
    assert "\\x1b[2J\\u202egnp" in text
    assert "[bold red]markup[/]" in text


def test_escape_keeps_what_is_harmless() -> None:
    assert escape("你好 naïve 😀 e\u0301") == "你好 naïve 😀 e\u0301"
    assert escape("a\nb\tc") == "a↵\nb\\tc"
    assert escape("a\nb", lines=False) == "a↵b"


def test_pieces_hold_whole_characters(tokenizer: Tokenizer) -> None:
    text = "𠮷野家 👩‍👩‍👧 ok"
    ids = tokenizer.encode(text)
    found = list(pieces(tokenizer, ids))
    assert "".join(piece for _, _, piece in found) == text
    assert [start for start, _, _ in found[1:]] == [end for _, end, _ in found[:-1]]
    assert found[-1][1] == len(ids)
    assert any(end - start > 1 for start, end, _ in found)


def test_a_tokenizer_without_chatml_shows_documents_only(tokenizer: Tokenizer, tmp_path: Path) -> None:
    value = json.loads(tokenizer._definition)
    value["added_tokens"] = value["added_tokens"][:1]
    bare = Tokenizer(json.dumps(value), {}, None, "bare/")
    path = write(tmp_path / "a.jsonl", {"messages": [USER, {"role": "assistant", "content": "ok"}]})
    with pytest.raises(DataError, match="no ChatML"):
        show(path, bare)
    assert show(write(tmp_path / "d.jsonl", {"text": "One"}), bare)[1].records == 1
