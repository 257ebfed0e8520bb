"""The shapes in which people keep conversations, preferences, rankings and tasks, to records and back."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import ValidationError

from fledge.core.errors import DataError
from fledge.core.records import Conversation, Message, Preference, Ranking, Record, Task
from fledge.core.transcripts import messages_of

R = TypeVar("R", bound=Record)


_SIDES = ("chosen", "rejected")
_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "observation": "tool", "tool_call": "function_call"}
# What sets say about a row: kept in its meta, so that samplers and filters can ask for it.
_COIG = {  # COIG-PC (BAAI) and COIG-CQIA (2403.18058)
    "task_type", "task_name_in_eng", "domain", "metadata", "other", "split", "index", "answer_from", "human_verified",
    "copyright",
}  # fmt: skip
_OPENHERMES = {  # OpenHermesPreferences; its candidates are those that chosen and rejected were taken from
    "source", "category", "candidates_completions", "candidate_policies", "ranks", "rank_str", "chosen_policy",
    "rejected_policy",
}  # fmt: skip


def to_record(row: Any, kind: type[R]) -> R:
    """One row in any of the shapes that `read_records` knows. Raises `DataError` with the reason, without a place."""
    try:
        if not isinstance(row, dict):
            raise DataError(f"expected an object, found {type(row).__name__}")
        return kind.model_validate(_normalise(row, kind))
    except ValidationError as error:
        raise DataError(reason(error)) from None


def to_api(pair: Record) -> dict[str, Any]:
    """A preference in the schema of fine-tuning APIs (SPEC I.2), which `to_record` reads back; ``meta`` has no place
    there. Raises `DataError` for a prompt that does not end with the user's turn."""
    assert isinstance(pair, Preference)
    if pair.prompt[-1].role != "user":
        raise DataError(f"the prompt ends with a turn of {pair.prompt[-1].role}: fine-tuning APIs want the user's")
    answers = {"preferred_output": pair.chosen, "non_preferred_output": pair.rejected}
    tools = {} if pair.tools is None else {"tools": list(pair.tools)}
    return {
        "input": {"messages": [_api_message(message) for message in pair.prompt], **tools},
        **{key: [{"role": "assistant", "content": text}] for key, text in answers.items()},
    }


def _api_message(message: Message) -> dict[str, Any]:
    calls = [
        {"type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
        for call in message.tool_calls or ()
    ]
    return {**message.plain(), **({"tool_calls": calls} if calls else {})}


def reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        parts = []
        for item in error.errors():
            where = ".".join(str(part) for part in item["loc"])
            parts.append(f"{where}: {item['msg']}" if where else item["msg"].removeprefix("Value error, "))
        return "; ".join(parts)
    return str(error)


def _normalise(row: dict[str, Any], kind: type[Record]) -> dict[str, Any]:
    if kind is Conversation:
        return _conversation(row)
    if kind is Preference:
        return _preference(row)
    if kind is Ranking and "answers" not in row:
        return _ranking_of_two(row)
    if kind is Ranking:
        _refuse_unknown(row, {"prompt", "answers", "scores", "system", "tools", "id", "meta"})
        scores = {"scores": row["scores"]} if "scores" in row else {}
        prompt = [*_system(row), *_messages(row.get("prompt"))]
        return {"prompt": prompt, "answers": row["answers"], **scores, **_tools(row), "meta": _meta(row)}
    if kind is Task and "instruction_id_list" in row:
        return _instructions(row)
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
            role = _SHAREGPT_ROLES.get(item["from"], item["from"])
            called = role == "function_call"
            result.append(_called(item["value"]) if called else {"role": role, "content": item["value"]})
        elif isinstance(item, dict) and item.get("role") == "tool":  # which call it answers is not written
            result.append({key: value for key, value in item.items() if key not in ("tool_call_id", "name")})
        else:
            result.append(item)
    return result


def _called(value: Any) -> dict[str, Any]:
    """The assistant's message for ``{"name": ..., "arguments": ...}``, or a list of such, as a text."""
    try:
        calls = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise DataError(f"a function call that is not JSON: {value!r:.80}") from None
    return {"role": "assistant", "content": "", "tool_calls": calls if isinstance(calls, list) else [calls]}


def _tools(row: dict[str, Any]) -> dict[str, Any]:
    """``{"tools": ...}`` where the row has any, as a list or as its JSON."""
    tools = row.get("tools")
    if isinstance(tools, str):
        try:
            tools = json.loads(tools or "[]")
        except ValueError:
            raise DataError(f"'tools' is a text that is not JSON: {tools!r:.80}") from None
    return {"tools": tools} if tools else {}


def _conversation(row: dict[str, Any]) -> dict[str, Any]:
    if {"chosen", "rejected"} <= row.keys() or "preferred_output" in row:
        pair = _preference(row)  # a pair of answers is read as the dialogue with the better one
        better = {"role": "assistant", "content": pair["chosen"]}
        return {"messages": [*pair["prompt"], better], "meta": pair.get("meta", {}), **_tools(pair)}
    if "messages" in row:
        _refuse_unknown(row, {"messages", "tools", "parallel_tool_calls", "meta"})
        return {"messages": _messages(row["messages"]), "meta": _meta(row), **_tools(row)}
    if "conversations" in row:
        _refuse_unknown(row, {"conversations", "system", "tools", "id", "meta"})
        return {"messages": _system(row) + _messages(row["conversations"]), "meta": _meta(row), **_tools(row)}
    if "prompt" in row and "response" in row:
        _refuse_unknown(row, {"prompt", "response", "id", "meta"})
        return {**_pair(row["prompt"], row["response"]), "meta": _meta(row)}
    if "instruction" in row:
        _refuse_unknown(row, {"instruction", "input", "output", "response", "id", "meta", *_COIG})
        if "output" in row and "response" in row:
            raise DataError("both 'output' and 'response': which is the answer?")
        instruction, extra = row["instruction"], row.get("input") or ""
        if not isinstance(instruction, str) or not isinstance(extra, str):
            raise DataError("'instruction' and 'input' must be texts")
        question = instruction + (f"\n{extra}" if extra else "")
        return {**_pair(question, row.get("output", row.get("response"))), "meta": _meta(row, _COIG)}
    raise DataError(
        "no conversation here: expected the key 'messages' (or 'conversations', or 'prompt' with 'response', or "
        f"'instruction' with 'output'); found {sorted(row)}"
    )


def _pair(question: Any, answer: Any) -> dict[str, Any]:
    if not isinstance(answer, str) or not answer.strip():
        raise DataError("the answer is empty")
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def _meta(row: dict[str, Any], more: Iterable[str] = ()) -> Any:
    """The row's ``meta``, with its ``id`` and those of ``more`` that it has."""
    meta = row.get("meta", {})
    if not isinstance(meta, dict):
        return meta
    return {**meta, **{key: row[key] for key in ("id", *sorted(more)) if key in row}}


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


def _instructions(row: dict[str, Any]) -> dict[str, Any]:
    """A prompt with instructions that a program checks. Values that are null are none."""
    _refuse_unknown(row, {"key", "prompt", "instruction_id_list", "kwargs"})
    values = row.get("kwargs")
    if not isinstance(values, list) or not all(isinstance(one, dict) for one in values):
        raise DataError("'kwargs' must be a list of objects, one for each of 'instruction_id_list'")
    kwargs = [{key: value for key, value in one.items() if value is not None} for one in values]
    return {
        "id": f"ifeval-{row.get('key')}",
        "messages": _messages(row.get("prompt")),
        "verifier": "instructions",
        "answer": {"instructions": row["instruction_id_list"], "kwargs": kwargs},
        "skill": "instructions",
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
        _refuse_unknown(row, {"prompt", "chosen", "rejected", "system", "tools", "id", "meta", *_OPENHERMES})
        about = _OPENHERMES - {"candidates_completions"}  # as long as the row itself
        return {**_answers(row, _messages(row["prompt"])), "meta": _meta(row, about), **_tools(row)}
    if "conversations" in row:
        _refuse_unknown(row, {"conversations", "system", "tools", "chosen", "rejected", "id", "meta"})
        return {**_answers(row, _messages(row["conversations"])), "meta": _meta(row), **_tools(row)}
    _refuse_unknown(row, {"chosen", "rejected", "system", "tools", "id", "meta"})
    sides = {side: messages_of(row[side]) if isinstance(row[side], str) else row[side] for side in _SIDES}
    if None in sides.values():
        raise DataError("without a 'prompt', 'chosen' and 'rejected' must be whole dialogues")
    return {**_answers({**row, **sides}, []), "meta": _meta(row), **_tools(row)}


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


def _ranking_of_two(row: dict[str, Any]) -> dict[str, Any]:
    """A pair in any of its shapes, with what `Preference` refuses."""
    pair = Preference.model_validate(_preference(row))
    return {"prompt": pair.prompt, "answers": (pair.chosen, pair.rejected), "meta": pair.meta, "tools": pair.tools}


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
    # whether several calls may be made at once is said by the answers; without tools it says nothing
    messages = source["messages"]
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], dict):
        raise DataError("'input' must hold a list of messages")
    if messages[-1].get("role") != "user":
        raise DataError(f"'input' must end with the user's turn, not one of {messages[-1].get('role')!r}")
    for key in ("preferred_output", "non_preferred_output"):
        output = row[key]
        if not isinstance(output, list) or len(output) != 1 or not isinstance(output[0], dict):
            raise DataError(f"'{key}' must be a list with exactly one message")
        _refuse_unknown(output[0], {"role", "content", "tool_calls"})
    return {
        "prompt": _messages(messages),
        "chosen": _last_turn(row["preferred_output"]),
        "rejected": _last_turn(row["non_preferred_output"]),
        **_tools(source),
    }


def _last_turn(value: Any) -> str:
    if isinstance(value, str):
        return value
    messages = _messages([value] if isinstance(value, dict) else value)
    if not messages or not isinstance(messages[-1], dict) or messages[-1].get("role") != "assistant":
        raise DataError("an answer must be a text, or messages that end with the assistant's")
    last = messages[-1]
    if not isinstance(last.get("content"), str) and not last.get("tool_calls"):
        raise DataError("the assistant's message has no text content")
    # an answer's weight has no part in a pair
    return Message.model_validate({key: last.get(key) for key in ("role", "content", "tool_calls")}).text


def _refuse_unknown(row: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(row.keys() - known)
    if unknown:
        raise DataError(f"unknown key {unknown[0]!r}; expected {sorted(known)}")
