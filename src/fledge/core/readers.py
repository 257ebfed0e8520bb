"""Read and write records as JSON lines, JSON arrays or Parquet; a bad row is reported with file and line."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from fledge.core.errors import DataError
from fledge.core.packed import open_packed
from fledge.core.records import Conversation, Preference, Record, Task

R = TypeVar("R", bound=Record)
OnError = Literal["fail", "skip"]


def read_records(
    path: Path, kind: type[R], on_error: OnError = "fail", skipped: list[str] | None = None
) -> Iterator[R]:
    """Yield the records of a file. With ``on_error="skip"`` the reason for each bad row is appended to ``skipped``.

    `Preference` rows may also be in the implicit-prompt form (``chosen`` and ``rejected`` as whole dialogues) or in
    the form of fine-tuning APIs (``input``, ``preferred_output``, ``non_preferred_output``). `Conversation` rows may
    also be a pair, of which the better answer is taken, or use ``conversations`` with ``from``/``value``, or
    ``prompt``/``response``, or ``instruction``/``output``. `Task` rows may be ``question`` and ``answer`` as in GSM8K:
    the number after the last ``####``, or a bare number.
    """
    for _, record in read_placed(path, kind, on_error, skipped):
        yield record


def read_placed(
    path: Path, kind: type[R], on_error: OnError = "fail", skipped: list[str] | None = None
) -> Iterator[tuple[str, R]]:
    """As `read_records`, each record with its place: ``path:line``, or as the file's format counts."""
    for place, row in read_rows(path, on_error, skipped):
        try:
            record = to_record(row, kind)
        except DataError as error:
            message = f"{place}: {error}"
            if on_error == "fail":
                raise DataError(f"{message}\n  (on_error=skip counts such rows and goes on)") from None
            if skipped is not None:
                skipped.append(message)
        else:
            yield place, record


def read_rows(path: Path, on_error: OnError = "fail", skipped: list[str] | None = None) -> Iterator[tuple[str, Any]]:
    """(place, row) of a file as it stands; what is no JSON is refused or skipped as in `read_records`."""
    yield from _rows(Path(path), on_error, skipped)


def to_record(row: Any, kind: type[R]) -> R:
    """One row in any of the shapes that `read_records` knows. Raises `DataError` with the reason, without a place."""
    try:
        if not isinstance(row, dict):
            raise DataError(f"expected an object, found {type(row).__name__}")
        return kind.model_validate(_normalise(row, kind))
    except ValidationError as error:
        raise DataError(_reason(error)) from None


def write_jsonl(path: Path, rows: Iterable[BaseModel | dict[str, Any]]) -> int:
    """Write rows beside the place and rename when whole; returns how many."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    count = 0
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            for row in rows:
                value = row.model_dump(mode="json", exclude_none=True) if isinstance(row, BaseModel) else row
                file.write(json.dumps(value, ensure_ascii=False) + "\n")
                count += 1
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return count


def open_text(path: Path) -> io.TextIOBase:
    """A text file, plain, .gz or .zst."""
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    return io.TextIOWrapper(open_packed(path), encoding="utf-8")


def _rows(path: Path, on_error: OnError, skipped: list[str] | None) -> Iterator[tuple[str, Any]]:
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".parquet"):
        yield from _parquet(path, on_error, skipped)
    elif name.endswith(".json"):
        with open_text(path) as file:
            try:
                values = json.load(file)
            except (ValueError, OSError, EOFError) as error:
                raise DataError(f"{path}: not valid JSON: {error}") from None
        if not isinstance(values, list):
            raise DataError(f"{path}: expected a list of objects at the top level")
        yield from ((f"{path}:item {i}", row) for i, row in enumerate(values))
    else:
        yield from _json_lines(path, on_error, skipped)


def _parquet(path: Path, on_error: OnError, skipped: list[str] | None) -> Iterator[tuple[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    try:
        rows = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        _complain(f"{path}: not a Parquet file: {error}", on_error, skipped)
        return
    yield from ((f"{path}:row {i}", row) for i, row in enumerate(rows))


def _json_lines(path: Path, on_error: OnError, skipped: list[str] | None) -> Iterator[tuple[str, Any]]:
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    with open_packed(path) as file:
        number = 0
        while True:
            try:
                line = file.readline()
            except (OSError, EOFError) as error:  # a packed file that was cut or is damaged
                _complain(f"{path}:after line {number}: cannot be read further: {error}", on_error, skipped)
                return
            if not line:
                return
            number += 1
            if not line.strip():
                continue
            try:
                value = json.loads(line.decode("utf-8"))
            except ValueError as error:  # UnicodeDecodeError is one
                _complain(f"{path}:{number}: not valid JSON: {error}", on_error, skipped)
                continue
            yield f"{path}:{number}", value


def _complain(message: str, on_error: OnError, skipped: list[str] | None) -> None:
    if on_error == "fail":
        raise DataError(f"{message}\n  (on_error=skip counts such rows and goes on)")
    if skipped is not None:
        skipped.append(message)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        parts = []
        for item in error.errors():
            where = ".".join(str(part) for part in item["loc"])
            parts.append(f"{where}: {item['msg']}" if where else item["msg"].removeprefix("Value error, "))
        return "; ".join(parts)
    return str(error)


_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "observation": "tool", "function_call": "assistant"}


def _normalise(row: dict[str, Any], kind: type[Record]) -> dict[str, Any]:
    if kind is Conversation:
        return _conversation(row)
    if kind is Preference:
        return _preference(row)
    if kind is Task and "verifier" not in row:
        return _question(row)
    return row


def _messages(value: Any) -> list[dict[str, Any]]:
    """Messages in either spelling; a bare string is one user message."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise DataError(f"messages must be a list, found {type(value).__name__}")
    result = []
    for item in value:
        if isinstance(item, dict) and "from" in item and "value" in item:
            role = item["from"]
            result.append({"role": _SHAREGPT_ROLES.get(role, role), "content": item["value"]})
        else:
            result.append(item)
    return result


def _conversation(row: dict[str, Any]) -> dict[str, Any]:
    if {"chosen", "rejected"} <= row.keys() or "preferred_output" in row:
        pair = _preference(row)  # a pair of answers is read as the dialogue with the better one
        better = {"role": "assistant", "content": pair["chosen"]}
        return {"messages": [*pair["prompt"], better], "meta": pair.get("meta", {})}
    if "messages" in row:
        known = {"messages", "meta"}
        _refuse_unknown(row, known)
        return {**row, "messages": _messages(row["messages"])}
    if "conversations" in row:
        _refuse_unknown(row, {"conversations", "system", "tools", "id", "meta"})
        _refuse_tools(row)
        return {"messages": _system(row) + _messages(row["conversations"]), "meta": _meta(row)}
    if "prompt" in row and "response" in row:
        _refuse_unknown(row, {"prompt", "response", "id", "meta"})
        return {**_pair(row["prompt"], row["response"]), "meta": _meta(row)}
    if "instruction" in row:
        _refuse_unknown(row, {"instruction", "input", "output", "response", "id", "meta"})
        if "output" in row and "response" in row:
            raise DataError("both 'output' and 'response': which is the answer?")
        instruction, extra = row["instruction"], row.get("input") or ""
        if not isinstance(instruction, str) or not isinstance(extra, str):
            raise DataError("'instruction' and 'input' must be texts")
        question = instruction + (f"\n{extra}" if extra else "")
        return {**_pair(question, row.get("output", row.get("response"))), "meta": _meta(row)}
    raise DataError(
        "no conversation here: expected the key 'messages' (or 'conversations', or 'prompt' with 'response', or "
        f"'instruction' with 'output'); found {sorted(row)}"
    )


def _pair(question: Any, answer: Any) -> dict[str, Any]:
    if not isinstance(answer, str) or not answer.strip():
        raise DataError("the answer is empty")
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def _meta(row: dict[str, Any]) -> Any:
    """The row's ``meta``, with its ``id`` where it has one."""
    meta = row.get("meta", {})
    return {**meta, "id": row["id"]} if isinstance(meta, dict) and "id" in row else meta


def _question(row: dict[str, Any]) -> dict[str, Any]:
    """A question with a number as its answer; the id follows from the question where none is given."""
    if "question" not in row or "answer" not in row:
        raise DataError(
            "no task here: expected 'messages', 'verifier' and 'answer' (or 'question' and 'answer' with a number); "
            f"found {sorted(row)}"
        )
    _refuse_unknown(row, {"question", "answer", "id", "skill", "language", "meta"})
    question = row["question"]
    if not isinstance(question, str) or not question.strip():
        raise DataError("the question is empty")
    digest = hashlib.blake2b(question.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return {
        "id": str(row.get("id", digest)),
        "messages": [{"role": "user", "content": question}],
        "verifier": "gsm8k",
        "answer": {"value": _final_number(row["answer"])},
        **{key: row[key] for key in ("skill", "language", "meta") if key in row},
    }


def _final_number(answer: Any) -> str:
    """``... #### 1,200`` -> "1200"; "9" -> "9"; 145.0 -> "145". Raises `DataError` for what is no number."""
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    text = str(answer) if isinstance(answer, int | float) and not isinstance(answer, bool) else answer
    if not isinstance(text, str):
        raise DataError(f"the answer must be a text or a number, found {type(answer).__name__}")
    final = text.rpartition("####")[2].strip().replace(",", "")
    if not _NUMBER.fullmatch(final):
        shown = final if len(final) <= 60 else final[:57] + "..."
        raise DataError(f"the answer neither ends in '#### NUMBER' nor is a number: {shown!r}")
    return final


_NUMBER = re.compile(r"[-+]?(\d+(\.\d+)?|\.\d+|\d+/\d+)%?", re.ASCII)


def _preference(row: dict[str, Any]) -> dict[str, Any]:
    if "preferred_output" in row or "non_preferred_output" in row:
        return _api_preference(row)
    if "chosen" not in row or "rejected" not in row:
        raise DataError(
            "no preference here: expected 'prompt', 'chosen', 'rejected' (or 'input', 'preferred_output', "
            f"'non_preferred_output'); found {sorted(row)}"
        )
    if "prompt" in row:
        _refuse_unknown(row, {"prompt", "chosen", "rejected", "system", "id", "meta"})
        return {**_answers(row, _messages(row["prompt"])), "meta": _meta(row)}
    if "conversations" in row:
        _refuse_unknown(row, {"conversations", "system", "tools", "chosen", "rejected", "id", "meta"})
        _refuse_tools(row)
        return {**_answers(row, _messages(row["conversations"])), "meta": _meta(row)}
    _refuse_unknown(row, {"chosen", "rejected", "system", "id", "meta"})
    if isinstance(row["chosen"], str) or isinstance(row["rejected"], str):
        raise DataError("without a 'prompt', 'chosen' and 'rejected' must be whole dialogues")
    return {**_answers(row, []), "meta": _meta(row)}


def _answers(row: dict[str, Any], prompt: list[dict[str, Any]]) -> dict[str, Any]:
    """Prompt and answers. What both sides have between the prompt and their last turn belongs to the prompt."""
    system = _system(row)
    chosen, rejected = (_between(row[side], system, prompt, side) for side in ("chosen", "rejected"))
    if chosen != rejected:
        raise DataError("'chosen' and 'rejected' differ before their last turn: they do not share a prompt")
    return {
        "prompt": [*system, *prompt, *chosen],
        "chosen": _last_turn(row["chosen"]),
        "rejected": _last_turn(row["rejected"]),
    }


def _between(value: Any, system: list[dict[str, Any]], prompt: list[dict[str, Any]], side: str) -> list[dict[str, Any]]:
    """The turns between the prompt and the last; a dialogue may begin with the row's ``system`` or without it."""
    before = [] if isinstance(value, str) else _messages([value] if isinstance(value, dict) else value)[:-1]
    if system and before[: len(system)] == system:
        before = before[len(system) :]
    if before and before[: len(prompt)] != prompt:
        raise DataError(f"{side!r} has turns before the answer that are not the prompt's; give the answer alone")
    return before[len(prompt) :]


def _system(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "system", "content": row["system"]}] if row.get("system") else []


def _refuse_tools(row: dict[str, Any]) -> None:
    """Templates are rendered without tools, so an answer that calls one would stand there unexplained."""
    if row.get("tools") not in (None, "", "[]", [], {}):
        raise DataError("'tools' are not supported; leave out such rows, or write the tools into the system message")


def _api_preference(row: dict[str, Any]) -> dict[str, Any]:
    """The schema of fine-tuning APIs: exactly three keys, each output a list with one assistant message."""
    _refuse_unknown(row, {"input", "preferred_output", "non_preferred_output"})
    missing = {"input", "preferred_output", "non_preferred_output"} - row.keys()
    if missing:
        raise DataError(f"missing {sorted(missing)}")
    source = row["input"]
    if not isinstance(source, dict) or "messages" not in source:
        raise DataError("'input' must be an object with 'messages'")
    _refuse_unknown(source, {"messages", "tools", "parallel_tool_calls"})
    _refuse_tools(source)  # without tools, parallel_tool_calls says nothing, whatever it is
    for key in ("preferred_output", "non_preferred_output"):
        output = row[key]
        if not isinstance(output, list) or len(output) != 1:
            raise DataError(f"'{key}' must be a list with exactly one message")
    return {
        "prompt": _messages(source["messages"]),
        "chosen": _last_turn(row["preferred_output"]),
        "rejected": _last_turn(row["non_preferred_output"]),
    }


def _last_turn(value: Any) -> str:
    if isinstance(value, str):
        return value
    messages = _messages([value] if isinstance(value, dict) else value)
    if not messages or not isinstance(messages[-1], dict) or messages[-1].get("role") != "assistant":
        raise DataError("an answer must be a text, or messages that end with the assistant's")
    content = messages[-1].get("content")
    if not isinstance(content, str):
        raise DataError("the assistant's message has no text content")
    return content


def _refuse_unknown(row: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(row.keys() - known)
    if unknown:
        raise DataError(f"unknown key {unknown[0]!r}; expected {sorted(known)}")
