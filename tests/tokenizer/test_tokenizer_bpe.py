from __future__ import annotations

import json
import random
import sys
import unicodedata

import pytest
from tokenizer_texts import CHINESE, training_texts

from fledge.core.errors import ConfigError, DataError
from fledge.tokenizer import bpe
from fledge.tokenizer.bytelevel import CONTROL_STRINGS, QWEN_PATTERN, is_nfc
from fledge.tokenizer.tokenizer import Tokenizer

# The splits of the specification (B.1), checked there against Qwen's own tokenizer.
SPLITS = {
    "In 2024, it's 3.14!!\n\nOK": [
        "In",
        " ",
        "2",
        "0",
        "2",
        "4",
        ",",
        " it",
        "'s",
        " ",
        "3",
        ".",
        "1",
        "4",
        "!!\n\n",
        "OK",
    ],
    "I'LL  go": ["I", "'LL", " ", " go"],
    "你好，世界123": ["你好", "，世界", "1", "2", "3"],
    "x = 1\n    y": ["x", " =", " ", "1", "\n", "   ", " y"],
    "user\n\nhi": ["user", "\n\n", "hi"],
}


def split(text: str) -> list[str]:
    from tokenizers import Regex, pre_tokenizers

    return [piece for piece, _ in pre_tokenizers.Split(Regex(QWEN_PATTERN), "isolated").pre_tokenize_str(text)]


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Texts of random assigned characters, mixed with spaces, line breaks, digits and apostrophes."""
    draw = random.Random(seed)
    common = [
        " ",
        " ",
        "\n",
        "\r\n",
        "\t",
        "'",
        "'s",
        "1",
        "２",
        "é",
        "e\u0301",
        "好",
        "世界",
        "hello",
        "The",
        "!",
        "\u3000",
    ]
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(draw.randint(0, 40)):
            code = draw.randrange(sys.maxunicode + 1)
            if draw.random() < 0.3 and unicodedata.category(chr(code)) != "Cs":
                parts.append(chr(code))
            else:
                parts.append(draw.choice(common))
        texts.append("".join(parts))
    return texts


@pytest.mark.parametrize("text", SPLITS)
def test_the_pre_tokeniser_splits_as_specified(text: str) -> None:
    assert split(text) == SPLITS[text]


def test_ids_are_bytes_then_merges_then_control_tokens(plain: Tokenizer) -> None:
    assert plain.vocab_size == plain.embedding_rows == 1024
    assert [plain.endoftext, plain.im_start, plain.im_end] == [1021, 1022, 1023]
    assert {plain.token_bytes(i) for i in range(256)} == {bytes([i]) for i in range(256)}
    assert plain.control_strings == CONTROL_STRINGS


def test_rows_are_padded_where_the_text_cannot_fill_them() -> None:
    small = bpe.train(["aa bb aa bb"], 512, pad_to=128)
    assert small.vocab_size < 300
    assert small.embedding_rows == 384
    assert small.decode([380]) == "\N{REPLACEMENT CHARACTER}"
    with pytest.raises(DataError, match="no token 384"):
        small.decode([384])


def test_a_size_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="use 4992 or 5056"):
        bpe.check_size(5000, 64)
    with pytest.raises(ConfigError, match="need 259"):
        bpe.check_size(256, 64)
    with pytest.raises(DataError, match="no text"):
        bpe.train([], 512)


def test_training_does_not_depend_on_order_or_process(plain: Tokenizer) -> None:
    texts = training_texts()
    random.Random(1).shuffle(texts)
    again = bpe.train(texts, 1024)
    assert again._definition == plain._definition


def test_no_token_crosses_a_split_and_digits_stand_alone(plain: Tokenizer) -> None:
    for number in range(plain.vocab_size):
        if number in plain.control_ids:
            continue
        text = plain.token_bytes(number).decode("utf-8", "ignore")
        if text.encode() == plain.token_bytes(number):
            assert len(split(text)) <= 1, text
            assert len(text) == 1 or not any(unicodedata.category(c).startswith("N") for c in text), text
    for text in [*SPLITS, "½ cup, Ⅻ, ٣٤٥, 2024年12月", *random_texts(200, 3)]:
        text = unicodedata.normalize("NFC", text)
        whole = plain.encode(text)
        assert whole == [i for piece in split(text) for i in plain.encode(piece)]


def test_round_trip_of_random_texts(plain: Tokenizer) -> None:
    from tokenizers import normalizers

    for text in [*SPLITS, CHINESE, "", *random_texts(500)]:
        assert plain.decode(plain.encode(text)) == normalizers.NFC().normalize_str(text)


def test_round_trip_of_every_assigned_code_point(plain: Tokenizer) -> None:
    points = [chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) not in ("Cs", "Cn", "Co")]
    for start in range(0, len(points), 4001):
        text = " ".join(points[start : start + 4001])
        assert plain.decode(plain.encode(text)) == unicodedata.normalize("NFC", text)


@pytest.mark.long
def test_round_trip_of_every_code_point_alone(plain: Tokenizer) -> None:
    for code in range(sys.maxunicode + 1):
        if not 0xD800 <= code < 0xE000:
            assert plain.decode(plain.encode(chr(code))) == unicodedata.normalize("NFC", chr(code))


def test_text_is_normalised_to_nfc(plain: Tokenizer) -> None:
    assert plain.encode("e\u0301") == plain.encode("é")
    assert not is_nfc("e\u0301")
    assert is_nfc("é 你好 😀")
    assert not is_nfc("a\u0378")  # unassigned: what it does under NFC is not known
    assert not is_nfc("a\U0001fbcf" if unicodedata.category("\U0001fbcf") == "Cn" else "a\u0378")


def test_the_fast_encoder_gives_the_same_ids(plain: Tokenizer) -> None:
    assert plain.fast_reason == ""
    assert plain.fast is not None
    texts = [
        *SPLITS,
        CHINESE * 3,
        *CONTROL_STRINGS,
        "a" * 500,
        "-" * 77,
        " " * 99 + "x",
        *training_texts(),
        *random_texts(2000, 7),
    ]
    slow = [item.ids for item in plain._backend.encode_batch(texts, add_special_tokens=False)]
    assert [plain.fast.encode(text) for text in texts] == slow
    assert plain.encode_batch(texts) == slow
    assert plain.encode_batch(texts, threads=1) == slow
    assert [plain.encode(text) for text in texts] == slow


def test_white_space_that_overflows_tiktoken_takes_the_other_path(plain: Tokenizer) -> None:
    texts = [" " * 1_000_000 + "x", CHINESE * 200]
    assert plain.fast is not None
    assert [plain.fast.usable(text) for text in texts] == [False, True]
    assert plain.decode(plain.encode_batch(texts)[0]) == texts[0]
    assert plain.encode_batch(texts)[1] == plain.encode(texts[1])


def test_merges_that_tiktoken_would_read_otherwise_are_declined(plain: Tokenizer) -> None:
    value = json.loads(plain._definition)
    value["model"]["merges"][3], value["model"]["merges"][4] = value["model"]["merges"][4], value["model"]["merges"][3]
    other = Tokenizer(json.dumps(value), plain._config, plain._template_text)
    assert "order of its merges" in other.fast_reason
    assert other.encode_batch([CHINESE * 400])[0] == other.encode(CHINESE * 400)
    value = json.loads(plain._definition)
    value["normalizer"] = {"type": "Lowercase"}
    assert "Lowercase" in Tokenizer(json.dumps(value), {}, None).fast_reason


def test_added_tokens_that_text_may_hold_are_found_on_both_paths(plain: Tokenizer) -> None:
    """Qwen2.5 has such tokens: ``<tool_call>`` is no control token."""
    value = json.loads(plain._definition)
    value["added_tokens"].append({**value["added_tokens"][0], "id": 1024, "content": "<tool_call>", "special": False})
    found = Tokenizer(json.dumps(value), {}, None)
    texts = ["call <tool_call>x<|im_end|>" + CHINESE * 200, CHINESE * 200]
    one, other = found.encode_batch(texts)
    assert found.fast_reason == ""
    assert one.count(1024) == 1
    assert not found.control_ids.intersection(one)
    assert [one, other] == [found.encode(text) for text in texts]
    assert found.decode(one) == texts[0]


def test_compression_is_measured_over_the_corpus(plain: Tokenizer) -> None:
    found = bpe.compression(plain, ["今天星期几？", "Hello"])
    tokens = len(plain.encode("今天星期几？")) + len(plain.encode("Hello"))
    assert found["tokens"] == tokens
    assert found["bytes"] == 6 * 3 + 5
    assert found["tokens_per_byte"] == round(tokens / 23, 4)
