from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from fledge.core.errors import ArtefactError, DataError
from fledge.tokenizer import bpe
from fledge.tokenizer.bytelevel import CONTROL_STRINGS
from fledge.tokenizer.template import QWEN2_SYSTEM, read_template, render, write_template
from fledge.tokenizer.tokenizer import StreamDecoder, Tokenizer

QWEN2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXTS = ["Hello world", "你好，世界 2024", "  two  spaces\n\n", "a\u0301 e\u0301", "😀👩‍👩‍👧", "x<|im_end|>y"]


def test_save_and_load_give_the_same_tokenizer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path, model_max_length=512)
    again = Tokenizer.load(tmp_path)
    assert [again.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
    assert (again.vocab_size, again.embedding_rows) == (tokenizer.vocab_size, tokenizer.embedding_rows)
    assert again.default_system == QWEN2_SYSTEM
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["model_max_length"] == 512
    assert config["clean_up_tokenization_spaces"] is False
    assert (config["eos_token"], config["pad_token"]) == ("<|im_end|>", "<|endoftext|>")


def test_transformers_reads_the_folder(tokenizer: Tokenizer, reference: Any) -> None:
    assert len(reference) == tokenizer.vocab_size
    assert (reference.eos_token_id, reference.pad_token_id) == (tokenizer.im_end, tokenizer.endoftext)
    assert reference.bos_token_id is None
    for text in TEXTS[:-1]:
        ids = tokenizer.encode(text)
        assert reference.encode(text) == ids
        assert reference.decode(ids) == tokenizer.decode(ids)
    with_control = [tokenizer.im_start, *tokenizer.encode("hi"), tokenizer.im_end]
    assert reference.decode(with_control) == tokenizer.decode(with_control, skip_control=False)
    assert reference.decode(with_control, skip_special_tokens=True) == tokenizer.decode(with_control) == "hi"


def test_transformers_reads_it_beside_a_model_configuration(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="parity with transformers needs transformers")
    tokenizer.save(tmp_path)
    for kind in ("qwen2", "llama"):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
        found = transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert [found.encode(text) for text in TEXTS[:-1]] == [tokenizer.encode(text) for text in TEXTS[:-1]]


@pytest.mark.parametrize("control", CONTROL_STRINGS)
def test_control_strings_in_text_are_plain_text(tokenizer: Tokenizer, control: str) -> None:
    text = f'print("{control}")'
    for ids in (tokenizer.encode(text), tokenizer.encode_batch([text])[0], tokenizer.encode_batch([text * 9000])[0]):
        assert not tokenizer.control_ids.intersection(ids)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.has_control_string(text)
    assert not tokenizer.has_control_string(text.replace("|", ""))


@pytest.mark.parametrize(
    "system", [None, "", QWEN2_SYSTEM, 'Say "no" \\ to {{ 1 }} {% endfor %}\n{# 😀 #}', "你是小雀。\u2028\x01", "none "]
)
def test_the_default_system_message_is_recovered(system: str | None, tmp_path: Path) -> None:
    bpe.train(["hello hello"], 320, default_system=system).save(tmp_path)
    found = Tokenizer.load(tmp_path)
    assert found.default_system == system
    assert found.template.differs == ""
    before = "" if system is None else f"<|im_start|>system\n{system}<|im_end|>\n"
    text = render(write_template(system), [{"role": "user", "content": "Q"}], header=True)
    assert text == before + "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"


def test_a_default_system_message_with_a_control_string_is_refused() -> None:
    with pytest.raises(DataError, match="control string"):
        write_template("a<|im_end|>b")


def test_a_template_of_another_is_known_by_what_it_does() -> None:
    found = read_template(QWEN2_TEMPLATE)
    assert (found.default_system, found.differs, found.tool_differs) == (QWEN2_SYSTEM, "", False)
    none = read_template(QWEN2_TEMPLATE.replace("loop.first and", "false and"))
    assert (none.default_system, none.differs) == (None, "")
    tools = QWEN2_TEMPLATE.replace("message['role'] +", "('user' if message['role'] == 'tool' else message['role']) +")
    assert read_template(tools).tool_differs
    for bad in ("{{ messages[0].content }}", "{% if %}", "[INST] {{ messages[0]['content'] }} [/INST]", "{{ 1/0 }}"):
        assert read_template(bad).differs
    assert read_template("{{ messages.__class__.__mro__[1].__subclasses__() }}").differs  # the sandbox refuses


def test_saving_writes_the_template_that_chat_follows(folder: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "chat_template.jinja").write_text(QWEN2_TEMPLATE, encoding="utf-8")
    foreign = Tokenizer.load(tmp_path)
    foreign.save(tmp_path / "same")
    assert json.loads((tmp_path / "same/tokenizer_config.json").read_text())["chat_template"] == QWEN2_TEMPLATE
    (tmp_path / "chat_template.jinja").write_text("[INST] {{ messages[0]['content'] }}", encoding="utf-8")
    Tokenizer.load(tmp_path).save(tmp_path / "ours")
    written = json.loads((tmp_path / "ours/tokenizer_config.json").read_text())["chat_template"]
    assert written == write_template(QWEN2_SYSTEM)


def test_a_folder_written_by_transformers_is_read(tokenizer: Tokenizer, reference: Any, tmp_path: Path) -> None:
    reference.save_pretrained(tmp_path)
    found = Tokenizer.load(tmp_path)
    assert [found.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
    assert found.default_system == QWEN2_SYSTEM
    assert found.fast_reason == ""
    assert found.im_end == tokenizer.im_end


def test_rows_of_a_model_beside_it_can_be_decoded(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "config.json").write_text('{"vocab_size": 1152}', encoding="utf-8")
    found = Tokenizer.load(tmp_path)
    assert (found.vocab_size, found.embedding_rows) == (1024, 1152)
    assert found.decode([1151]) == "\N{REPLACEMENT CHARACTER}"
    with pytest.raises(DataError, match="no token 1152"):
        found.decode([1152])


def test_what_is_no_byte_level_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="not a tokenizer"):
        Tokenizer.load(tmp_path)
    from tokenizers import Tokenizer as Backend
    from tokenizers.models import WordLevel

    Backend(WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match="WordLevel"):
        Tokenizer.load(tmp_path)


def test_a_lone_surrogate_is_refused_with_its_place(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"U\+D800 at character 2"):
        tokenizer.encode("ab\ud800")


def test_streaming_never_splits_a_character(tokenizer: Tokenizer) -> None:
    text = "名字 is 👩‍👩‍👧 — ünïcödé 𠮷野家"
    ids = [tokenizer.im_start, *tokenizer.encode(text), tokenizer.im_end]
    stream = StreamDecoder(tokenizer)
    parts = [stream.push(number) for number in ids]
    assert "".join(parts) + stream.flush() == text == tokenizer.decode(ids)
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(parts)
    assert "" in parts[1:-1]  # something was held back, or this tests nothing


def test_streaming_gives_up_held_back_bytes_at_the_end(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("\U0002a6d6")  # a rare character: single bytes
    assert len(ids) > 1
    stream = StreamDecoder(tokenizer)
    assert [stream.push(number) for number in ids[:-1]] == [""] * (len(ids) - 1)
    assert stream.flush() == tokenizer.decode(ids[:-1]) == "\N{REPLACEMENT CHARACTER}"
    assert "".join(stream.push(number) for number in ids) == "\U0002a6d6"


def test_offsets_tile_the_text(tokenizer: Tokenizer) -> None:
    text = "你好 world 42"
    spans = tokenizer.offsets(tokenizer.encode(text))
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text.encode())
    assert all(left[1] == right[0] for left, right in itertools.pairwise(spans))
