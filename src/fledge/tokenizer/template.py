"""ChatML as a Jinja template, and finding out by experiment whether another's template is ChatML.

``<|im_start|>{role}\\n{content}<|im_end|>\\n`` for each message; where the first message is not a system message, a
default one may come before it (Qwen2 has one; our own tokenizers may have none, because tiny models need short
prompts).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fledge.core.errors import DataError
from fledge.core.records import Message
from fledge.tokenizer.bytelevel import CONTROL_STRINGS, IM_END, IM_START
from fledge.tokenizer.tools import turns_with_tools

QWEN2_SYSTEM = "You are a helpful assistant."
_HEAD = "{%- set default_system = "


@dataclass(frozen=True)
class Template:
    """What a folder's chat template does. ``differs`` says where it is not ChatML ("" where it is). ``hermes``: it
    writes tools as Qwen2.5 does (tools.py); ``tool_differs``: it writes tool messages in a way of its own."""

    default_system: str | None
    differs: str = ""
    tool_differs: bool = False
    hermes: bool = False


def write_template(default_system: str | None) -> str:
    """The template of our tokenizers; `read_template` recovers the default system message from it."""
    if default_system is not None and any(control in default_system for control in CONTROL_STRINGS):
        raise DataError(f"the default system message {default_system!r} holds a control string; take it out")
    literal = "none" if default_system is None else json.dumps(default_system, ensure_ascii=False)
    return (
        _HEAD + literal + " -%}"
        "{%- if default_system is not none and messages[0]['role'] != 'system' -%}"
        "{{- '" + IM_START + "system\\n' + default_system + '" + IM_END + "\\n' -}}"
        "{%- endif -%}"
        "{%- for message in messages -%}"
        "{{- '" + IM_START + "' + message['role'] + '\\n' + message['content'] + '" + IM_END + "\\n' -}}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '" + IM_START + "assistant\\n' -}}{%- endif -%}"
    )


def read_template(text: str | None) -> Template:
    """What a template does: ours is recognised by its text, another's by rendering a few dialogues in a sandbox."""
    if text is None:
        return Template(QWEN2_SYSTEM, "the folder has no chat template; ChatML as Qwen2 writes it is used")
    if text.startswith(_HEAD):
        rest = text[len(_HEAD) :]
        if rest.startswith("none "):
            default: str | None = None
        else:
            default = json.JSONDecoder().raw_decode(rest)[0]
        if text == write_template(default):
            return Template(default)
    return _probe(text)


def _probe(text: str) -> Template:
    user, assistant = {"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}
    system, tool = {"role": "system", "content": "S;"}, {"role": "tool", "content": "T"}
    differs = "its chat template is not ChatML; ChatML is used instead"
    try:
        first = render(text, [user])
        opening, ending = f"{IM_START}system\n", _chatml([user])
        default: str | None
        if first == ending:
            default = None
        elif first.startswith(opening) and first.endswith(f"{IM_END}\n{ending}"):
            default = first[len(opening) : -len(f"{IM_END}\n{ending}")]
        else:
            return Template(QWEN2_SYSTEM, differs)
        before = [] if default is None else [{"role": "system", "content": default}]
        for messages in ([user, assistant, user], [system, user, assistant], [system, user, assistant, user]):
            whole = messages if messages[0] is system else before + messages
            for header in (False, True):
                expected = _chatml(whole) + (f"{IM_START}assistant\n" if header else "")
                if render(text, messages, header) != expected:
                    return Template(QWEN2_SYSTEM, differs)
    except Exception:  # a template may raise anything; whatever it was, it is not plain ChatML
        return Template(QWEN2_SYSTEM, differs)
    hermes = _is_hermes(text, default)
    differs_on_tools = not hermes and _differs_on(text, [system, user, assistant, tool])
    return Template(default, tool_differs=differs_on_tools, hermes=hermes)


def _differs_on(text: str, messages: list[dict[str, Any]]) -> bool:
    try:
        return render(text, messages) != _chatml(messages)
    except Exception:
        return True


def _is_hermes(text: str, default_system: str | None) -> bool:
    call = {"name": "f", "arguments": {"x": [1, "é"]}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Q?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "T"},
        {"role": "tool", "content": "U"},
        {"role": "assistant", "content": "A.", "tool_calls": [call, call]},
        {"role": "tool", "content": "V"},
        {"role": "assistant", "content": "B."},
    ]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    made = turns_with_tools([Message.model_validate(message) for message in messages], tools, default_system)
    try:
        return render(text, messages, tools=tools) == _chatml([turn.message.plain() for turn in made])
    except Exception:
        return False


def _chatml(messages: list[dict[str, Any]]) -> str:
    return "".join(f"{IM_START}{message['role']}\n{message['content']}{IM_END}\n" for message in messages)


def render(
    text: str, messages: list[dict[str, Any]], header: bool = False, tools: list[dict[str, Any]] | None = None
) -> str:
    """Render a template as Hugging Face does, in Jinja's immutable sandbox (templates of others are hostile)."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> Any:
        raise DataError(f"the chat template refuses: {message}")

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = refuse
    return environment.from_string(text).render(messages=messages, tools=tools, add_generation_prompt=header)
