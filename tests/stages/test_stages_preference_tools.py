"""Pairs of dialogues with tools: written as SFT writes them, the loss on the answers alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fledge.core.records import Conversation, Preference
from fledge.core.row_shapes import to_record
from fledge.stages.dialogues import Account, read_preferences
from fledge.stages.rankings import read_rankings
from fledge.tokenizer import bpe
from fledge.tokenizer.chat import encode_chat
from fledge.tokenizer.inspect import preference_item
from fledge.tokenizer.tokenizer import Tokenizer

TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add", "arguments": {"a": 2}}}]}
BEFORE: list[dict[str, Any]] = [
    {"role": "user", "content": "2+3?"}, CALL, {"role": "tool", "content": "5"}, {"role": "user", "content": "and 2?"},
]  # fmt: skip
REJECTED = {"role": "assistant", "content": "no"}


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return bpe.train(["2+3? and 2? no add tool_call arguments name user assistant"] * 20, vocab_size=300, pad_to=4)


def test_ids_are_those_of_a_dialogue(words: Tokenizer, tmp_path: Path) -> None:
    """Prompt and answer are what SFT trains on for the same dialogue; only the answer is trained on."""
    row = {
        "input": {"messages": BEFORE, "tools": [TOOL]}, "preferred_output": [CALL], "non_preferred_output": [REJECTED],
    }  # fmt: skip
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    account = Account()
    (pair,) = read_preferences([path], words, 2000, "fail", account)
    (ranked,) = read_rankings([path], words, 2000, "fail", Account())
    for example in (pair, ranked.example):
        prompt, *answers = example.segments
        for answer, last in zip(answers, (CALL, REJECTED), strict=True):
            dialogue = Conversation.model_validate({"messages": [*BEFORE, last], "tools": [TOOL]})
            whole = encode_chat(words, dialogue, "last", final_newline=False)
            assert [*prompt.tokens.tolist(), *answer.tokens.tolist()] == whole.ids
            weights = np.concatenate([prompt.weight, answer.weight if example is pair else np.ones(len(answer.tokens))])
            assert weights.tolist() == whole.weights
    assert account.notes  # what is written otherwise than the folder's template would is told
    shown = preference_item(words, to_record(row, Preference), None)
    assert [part.ids for part in shown.parts] == [segment.tokens.tolist() for segment in pair.segments]
