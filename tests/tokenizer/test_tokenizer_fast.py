"""Ids through tiktoken are those of tokenizers, whatever the text; tokenizers of others fall back where they must."""

from __future__ import annotations

import inspect
import json
import random
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from test_tokenizer_bpe import SPLITS, random_texts
from tokenizer_texts import CHINESE, training_texts

from fledge.core.errors import DataError
from fledge.tokenizer import fast as fast_module
from fledge.tokenizer.bytelevel import CONTROL_STRINGS
from fledge.tokenizer.corpus import BATCH_CHARACTERS, CorpusEncoder, Disagreement, batches_of
from fledge.tokenizer.fast import _WHITE, MARK, SEPARATOR, marked
from fledge.tokenizer.tokenizer import Tokenizer

WHITE = "".join(map(chr, _WHITE))
ADVERSARIAL = [
    "", " ", "\n", "\r\n", " \n ", "  ", "   x", "a  b", "a \n b", "a\n  b", "a \r\n\r\n  b", "!\n\n  x", "!\r\n x",
    "x   ", "\u3000\u3000段落。\u3000\u3000段落", "a\xa0\xa0b", "a\u2028\u2028 b", "\x85 \x85x", "\x1c\x1c \x1dy",
    "\u200b \u200bz", "a" * 100_000, "-" * 5000, "好" * 20_000, " " * 50_000 + "x", "\n" * 3000 + " " * 3000,
    "\t \t" * 999 + "\n", "😀👨\u200d👩\u200d👧🇨🇳👍🏽", "e\u0301\u0323 e\u0323\u0301 \u1100\u1161\u11a8 \u0928\u093c",
    "\u212b\u2126\u212a", "\u0301abc", "abc\u0301", "I'LL don't 'S \u2019s '\u017f", "½ Ⅻ ٣٤٥ 2024年12月 １２",
    "x = 1\n    y\r\n\tz", *CONTROL_STRINGS, "<|im_start|>user\nhi<|im_end|>", f"a{SEPARATOR}b  c", f"a{MARK}b  c",
    SEPARATOR, f"x{MARK}{SEPARATOR}  y", "\x00\x01", "\ufeff\ufffd\uffff", "\U0010ffff", *SPLITS, CHINESE,
    CHINESE.replace("\n", "\r\n"),
]  # fmt: skip


def same(tokenizer: Tokenizer, texts: Sequence[str], workers: int = 1) -> None:
    """The encoder's ids are the reference's, text by text, each followed by the end token."""
    wanted = [[*ids, tokenizer.endoftext] for ids in tokenizer.reference_ids(texts)]
    found: list[list[int]] = []
    for (ids, lengths), _ in CorpusEncoder(tokenizer, workers).encode_all(batches_of(texts)):
        assert ids.dtype == np.int32
        assert int(lengths.sum()) == len(ids)
        found += [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]
    assert found == wanted


@pytest.fixture
def fresh(plain: Tokenizer) -> Tokenizer:
    """A tokenizer of its own, whose fast encoder a test may change."""
    return Tokenizer(plain._definition, plain._config, plain._template_text)


def changed(plain: Tokenizer, change: Callable[[dict[str, Any]], None]) -> Tokenizer:
    value = json.loads(plain._definition)
    change(value)
    return Tokenizer(json.dumps(value), plain._config, None, "changed")


@pytest.mark.parametrize("workers", [1, 2])
def test_adversarial_texts_have_the_same_ids(fresh: Tokenizer, workers: int) -> None:
    assert CorpusEncoder(fresh).engine == "tiktoken"
    same(fresh, [*ADVERSARIAL, *random_texts(500, 11)], workers)
    same(fresh, ADVERSARIAL[::-1], workers)


def test_many_batches_stay_in_order(fresh: Tokenizer) -> None:
    text = inspect.getsource(random)
    same(fresh, [text[: 20_000 + 7 * i] for i in range(5 * BATCH_CHARACTERS // 20_000)], 3)


def test_marks_stand_before_the_last_of_several_spaces() -> None:
    """Against the same rule as a regular expression."""
    rule = re.compile(f"(?<=[{WHITE}])(?=[{WHITE[:1]}{WHITE[2:4]}{WHITE[5:]}][^{WHITE}{SEPARATOR}])")
    assert "\n" not in rule.pattern[20:40]
    draw = random.Random(2)
    for _ in range(2000):
        text = "".join(draw.choices([*WHITE, *"   \n\n\r\t", SEPARATOR, *"ab好😀é\x1c\u200b\u180e"], k=25)) + SEPARATOR
        assert marked(text) == rule.sub(MARK, text)
    assert marked("a  b" + SEPARATOR) == f"a {MARK} b{SEPARATOR}"


def contexts(codes: Sequence[int]) -> list[str]:
    """Each code point alone, between letters, digits, signs, spaces and line breaks."""
    points = [chr(code) for code in codes if not 0xD800 <= code < 0xE000]
    return [f"a{c}b {c} {c}{c}  {c}\n{c}1{c}!{c}\r\n {c}'s{c}'{c}  " for c in points]


def test_code_points_are_split_alike(fresh: Tokenizer) -> None:
    same(fresh, contexts([*range(0x250), *_WHITE, *range(0x250, sys.maxunicode, 397)]))


@pytest.mark.long
def test_every_code_point_is_split_alike(fresh: Tokenizer) -> None:
    for start in range(0, sys.maxunicode + 1, 1 << 16):
        same(fresh, contexts(range(start, start + (1 << 16))), 2)


def test_a_lone_surrogate_is_refused_by_name(fresh: Tokenizer) -> None:
    for texts in (["fine", "half \ud83d pair"], ["half \ud83d pair " * 60_000]):
        with pytest.raises(DataError, match=r"U\+D83D at character 5"):
            list(CorpusEncoder(fresh, 2).encode_all([(texts, None)]))


def test_texts_with_added_tokens_go_through_tokenizers(plain: Tokenizer) -> None:
    def add(value: dict[str, Any]) -> None:
        token = {**value["added_tokens"][0], "id": 1024, "content": "<tool_call>", "special": False}
        value["added_tokens"].append(token)

    found = changed(plain, add)
    assert CorpusEncoder(found).engine == "tiktoken"
    texts = [*ADVERSARIAL[:20], "call <tool_call>x", CHINESE, "<tool_call>", "", "end"]
    same(found, texts)
    assert 1024 in CorpusEncoder(found).encode(texts)[0]


def test_gaps_in_the_ids_are_kept(plain: Tokenizer) -> None:
    def spread(value: dict[str, Any]) -> None:
        value["model"]["vocab"] = {t: i if i < 300 else 3 * i for t, i in value["model"]["vocab"].items()}
        for token in value["added_tokens"]:
            token["id"] *= 3
            value["model"]["vocab"][token["content"]] = token["id"]  # else tokenizers numbers them anew

    found = changed(plain, spread)
    assert CorpusEncoder(found).engine == "tiktoken"
    assert found.vocab_size == 3 * 1023 + 1
    same(found, [*ADVERSARIAL, *training_texts()])


def _swap(value: dict[str, Any]) -> None:
    merges = value["model"]["merges"]
    merges[3], merges[4] = merges[4], merges[3]


def _digits_in_threes(value: dict[str, Any]) -> None:  # Llama 3's
    split = value["pre_tokenizer"]["pretokenizers"][0]
    split["pattern"]["Regex"] = split["pattern"]["Regex"].replace(r"\p{N}", r"\p{N}{1,3}", 2)


def _no_merge(value: dict[str, Any]) -> None:
    del value["model"]["merges"][500]


def _ignore_merges(value: dict[str, Any]) -> None:  # a token that its merges never reach, found whole by Llama 3's
    value["model"]["ignore_merges"] = True
    merges = value["model"]["merges"]
    spelled = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    number = next(i for i, merge in enumerate(spelled) if len(merge.replace(" ", "")) > 4)
    token = spelled[number].replace(" ", "")
    merges[number] = [token[0], token[1:]]
    value["model"]["vocab"].setdefault(token[1:], 1040)


def _normalised_added(value: dict[str, Any]) -> None:
    value["added_tokens"].append(
        {**value["added_tokens"][0], "id": 1024, "content": "好", "special": False, "normalized": True}
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_swap, "order of its merges"),
        (_digits_in_threes, "not Qwen's"),
        (_no_merge, "arise from no merge"),
        (_ignore_merges, "part of it|no merge"),
        (_normalised_added, "normalised"),
        (lambda value: value.update(normalizer={"type": "NFKC"}), "NFKC"),
        (lambda value: value["model"].update(dropout=0.0001), "plain BPE"),
    ],
)
def test_what_tiktoken_cannot_follow_goes_through_tokenizers(
    plain: Tokenizer, change: Callable[[dict[str, Any]], None], why: str
) -> None:
    found = changed(plain, change)
    encoder = CorpusEncoder(found, 2)
    assert encoder.engine == "tokenizers"
    assert re.search(why, encoder.reason)
    if "dropout" not in found._definition or json.loads(found._definition)["model"]["dropout"] is None:
        same(found, ADVERSARIAL, 2)


def test_a_token_that_its_own_merge_does_not_reach_is_found(plain: Tokenizer) -> None:
    """Parts in order and each with one merge, but an earlier merge takes the bytes elsewhere."""

    def cross(value: dict[str, Any]) -> None:
        model, first = value["model"], 1021
        base = [t for t, i in sorted(model["vocab"].items(), key=lambda item: item[1]) if len(t) == 1][:3]
        a, b, c = base
        for token in value["added_tokens"]:
            token["id"] += 3
        new = [(b, c), (a, b), (a + b, c)]  # abc becomes a|bc: abc's own merge is never reached
        for number, (left, right) in enumerate(new):
            assert left + right not in model["vocab"]
            model["vocab"][left + right] = first + number
            model["merges"].append([left, right])

    found = changed(plain, cross)
    assert "does not arise from its merge" in found.fast_reason


def test_encoders_that_disagree_are_noticed(plain: Tokenizer, fresh: Tokenizer) -> None:
    assert plain.fast is not None
    ranks = dict(plain.fast._ranks)
    ranks[b"a"], ranks[b"e"] = ranks[b"e"], ranks[b"a"]
    fresh._fast, fresh._fast_reason = fast_module.FastEncoder(ranks, plain.fast._pattern, True), ""
    with pytest.raises(Disagreement, match="different ids"):
        list(CorpusEncoder(fresh, 2).encode_all([([CHINESE], None), (["banana tea"], None)]))
    texts = [CHINESE * 500, "banana tea"]
    assert fresh.encode_batch(texts) == plain.reference_ids(texts)
    assert "different ids" in fresh.fast_reason
    same_texts = CorpusEncoder(fresh, 2, slow="they disagreed")
    assert (same_texts.engine, same_texts.reason) == ("tokenizers", "they disagreed")
    assert same_texts.encode(["banana"])[0].tolist() == [*plain.reference_ids(["banana"])[0], plain.endoftext]
