"""Dialogues with tools: the ids of Qwen2.5's template, and which of them are trained on."""

from __future__ import annotations

import itertools
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from fledge.core.records import Conversation, Message
from fledge.tokenizer import bpe, chat
from fledge.tokenizer.bytelevel import IM_END
from fledge.tokenizer.chat import encode_chat, encode_continuation, encode_prompt, encode_reply, fit
from fledge.tokenizer.tokenizer import Tokenizer

TOOLS = [
    {"type": "function", "function": {"name": "天气", "parameters": {"type": "object", "properties": {"城市": {}}}}},
    {"name": "add", "description": 'sums "x" and "y" <b>', "parameters": {"x": "int", "y": [1, 2.5, None]}},
]
CALLS = [{"name": "天气", "arguments": {"城市": "北京"}}, {"name": "add", "arguments": {"x": 1, "y": "\n\"'"}}]
DIALOGUE: list[dict[str, Any]] = [
    {"role": "user", "content": "北京天气？1+1?"},
    {"role": "assistant", "content": "", "tool_calls": CALLS},
    {"role": "tool", "content": '{"度": 21}'},
    {"role": "tool", "content": "2"},
    {"role": "assistant", "content": "晴，2。", "tool_calls": CALLS[:1]},
    {"role": "tool", "content": "雨"},
    {"role": "assistant", "content": "21 度，下雨；得 2。"},
    {"role": "user", "content": "谢谢"},
    {"role": "assistant", "content": "不客气"},
]
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    """A tokenizer of ours with Qwen2.5's template (as trl keeps it) and two of its added tokens; as both read it."""
    transformers = pytest.importorskip("transformers", reason="parity with transformers needs transformers")
    found = find_spec("trl")
    if found is None or found.origin is None:
        pytest.skip("trl, which has Qwen2.5's template, is not installed (pip install fledge[parity])")
    folder = tmp_path_factory.mktemp("qwen")
    bpe.train([json.dumps([DIALOGUE, TOOLS], ensure_ascii=False)] * 5, 512).save(folder)
    file, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    definition, config = (json.loads(path.read_text(encoding="utf-8")) for path in (file, settings))
    top = max(token["id"] for token in definition["added_tokens"])
    for number, content in enumerate(("<tool_call>", "</tool_call>"), top + 1):
        token = {**definition["added_tokens"][0], "id": number, "content": content, "special": False}
        definition["added_tokens"].append(token)
    config["added_tokens_decoder"] = {
        str(token["id"]): {key: value for key, value in token.items() if key != "id"}
        for token in definition["added_tokens"]
    }
    template = Path(found.origin).parent / "chat_templates" / "qwen2_5.jinja"
    config["chat_template"] = template.read_text(encoding="utf-8")
    file.write_text(json.dumps(definition), encoding="utf-8")
    settings.write_text(json.dumps(config), encoding="utf-8")
    return Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)


def conversation(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> Conversation:
    return Conversation.model_validate({"messages": messages, "tools": tools})


def test_the_template_is_recognised(qwen: tuple[Tokenizer, Any]) -> None:
    template = qwen[0].template
    assert (template.hermes, template.differs, template.tool_differs) == (True, "", False)
    assert template.default_system == "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


@pytest.mark.parametrize(("system", "tools"), list(itertools.product([True, False], [TOOLS, None])))
def test_ids_are_those_of_the_template(system: bool, tools: Any, qwen: tuple[Tokenizer, Any]) -> None:
    tokenizer, reference = qwen
    messages = [SYSTEM, *DIALOGUE] if system else DIALOGUE
    for length in range(1 + system, len(messages) + 1):
        part = messages[:length]
        want = list(reference.apply_chat_template(part, tools=tools, tokenize=True, return_dict=False))
        made = encode_chat(tokenizer, conversation(part, tools))
        assert tokenizer.decode(made.ids, False) == tokenizer.decode(want, False)
        assert made.ids == want
        assert made.notes == {}


def test_prompts_and_continuations_grow_by_ids(qwen: tuple[Tokenizer, Any]) -> None:
    """A dialogue with a tool, as reinforcement learning makes it: what the tool said is put behind the reply's ids."""
    tokenizer, reference = qwen
    messages = [Message.model_validate(m) for m in [SYSTEM, *DIALOGUE]]
    settings = {"tokenize": True, "return_dict": False, "add_generation_prompt": True}
    want = reference.apply_chat_template([SYSTEM, *DIALOGUE[:4]], **settings)
    assert encode_prompt(tokenizer, messages[:5]) == list(want)
    said = '<tool_call>\n{"name": "add", "arguments": {"x": 1}}\n</tool_call>'
    grown = encode_prompt(tokenizer, messages[:2]) + encode_reply(tokenizer, said)
    grown += encode_continuation(tokenizer, [Message(role="tool", content="2")])
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "add", "arguments": {"x": 1}}]}
    dialogue = [SYSTEM, DIALOGUE[0], call, {"role": "tool", "content": "2"}]
    assert grown == list(reference.apply_chat_template(dialogue, **settings))


def test_calls_are_trained_on_and_what_tools_say_is_not(qwen: tuple[Tokenizer, Any]) -> None:
    tokenizer, _ = qwen
    made = encode_chat(tokenizer, conversation([SYSTEM, *DIALOGUE], TOOLS))
    trained = tokenizer.decode([i for i, w in zip(made.ids, made.weights, strict=True) if w], False)
    assert trained.count("<tool_call>") == 3
    assert "tool_response" not in trained
    assert "Be brief" not in trained
    assert trained.count(IM_END) == 4
    assert [(span.role, span.message) for span in made.spans] == [
        ("system", 0), ("user", 1), ("assistant", 2), ("tool", 3), ("assistant", 5), ("tool", 6), ("assistant", 7),
        ("user", 8), ("assistant", 9),
    ]  # fmt: skip
    last = encode_chat(tokenizer, conversation([SYSTEM, *DIALOGUE], TOOLS), "last")
    assert tokenizer.decode([i for i, w in zip(last.ids, last.weights, strict=True) if w], False) == f"不客气{IM_END}"
    assert fit(made, len(made.ids) - 1)[0] is not None
    kept = fit(made, len(made.ids) - 1)[0]
    assert kept is not None
    assert [span.role for span in kept.spans] == ["system", "user", "assistant"], "never begun with what a tool said"


def test_without_a_template_for_tools_they_are_written_and_counted(plain: Tokenizer) -> None:
    made = encode_chat(plain, conversation(DIALOGUE, TOOLS))
    assert made.notes == {chat.TOOLS_WRITTEN: 1}
    text = plain.decode(made.ids, False)
    assert text.startswith("<|im_start|>system\n# Tools\n")
    assert "<tool_response>\n雨\n</tool_response>" in text
    bare = [{"role": "user", "content": "?"}, {"role": "tool", "content": "T"}, {"role": "assistant", "content": "A"}]
    assert "<|im_start|>tool\nT" in plain.decode(encode_chat(plain, bare).ids, False), "ChatML has a role for them"
