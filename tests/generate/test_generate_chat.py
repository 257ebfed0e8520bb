"""load, chat and stream: the doors of the engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from generate_cases import chat_folder

import fledge
from fledge.core.errors import ArtefactError, ConfigError
from fledge.generate.defaults import chat_sampling

HELLO = [{"role": "user", "content": "你好, who are you?"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    chat_folder(folder, {"do_sample": False, "max_new_tokens": 40})
    return folder


def test_load_and_chat(folder: Path) -> None:
    model = fledge.load(folder)
    assert model.decoder.output_weight.dtype == torch.float32
    assert model.generation["max_new_tokens"] == 40
    engine = fledge.Engine(model)
    reply = engine.chat(HELLO)
    assert reply
    assert reply == engine.chat(HELLO)  # greedy, as the folder says
    assert engine.chat(HELLO, max_new_tokens=3) != reply
    assert engine.chat(HELLO, temperature=1.0, seed=1) == engine.chat(HELLO, temperature=1.0, seed=1)
    assert engine.chat(HELLO, temperature=1.0, seed=1) != engine.chat(HELLO, temperature=1.0, seed=2)


def test_stream_gives_the_same_text_in_whole_characters(folder: Path) -> None:
    engine = fledge.Engine(fledge.load(folder))
    for seed in range(5):
        arguments = {"temperature": 1.0, "seed": seed, "max_new_tokens": 60}
        pieces = list(engine.stream(HELLO, **arguments))
        request = engine.chat_request(HELLO, **arguments)
        (completion,) = engine.generate([request])[0]
        assert len(pieces) > 1
        assert "".join(pieces) == engine.chat(HELLO, **arguments)
        assert "".join(pieces) == engine._tokenizer().decode(completion.content)


def test_chat_stops_at_the_end_of_the_turn(folder: Path) -> None:
    engine = fledge.Engine(fledge.load(folder))
    words = engine._tokenizer()
    assert set(engine.chat_request(HELLO).stop_ids or ()) == {words.im_end, words.endoftext}
    # make the end of the turn likely after a few tokens, and see that nothing of it is in the text
    with torch.no_grad():
        weight = engine.decoder.model.embed_tokens.weight
        request = engine.chat_request(HELLO)
        third = engine.generate([request])[0][0].tokens[3]
        weight[words.im_end] = 1.5 * weight[third]
    completion = engine.generate([engine.chat_request(HELLO)])[0][0]
    assert completion.reason == "stop"
    text = engine.chat(HELLO)
    assert text == words.decode(completion.content)
    assert "<|im_end|>" not in text


def test_greedy_chat_equals_transformers_with_its_defaults(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    chat_folder(tmp_path, {"do_sample": False, "max_new_tokens": 30, "repetition_penalty": 1.2, "eos_token_id": [7]})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    words = transformers.AutoTokenizer.from_pretrained(tmp_path)
    engine = fledge.Engine(fledge.load(tmp_path))
    request = engine.chat_request(HELLO)
    ids = words.apply_chat_template(HELLO, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert list(request.prompt) == list(ids)
    expected = theirs.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), eos_token_id=list(request.stop_ids or ())
    )
    assert engine.generate([request])[0][0].tokens == expected[0, len(ids) :].tolist()


def test_defaults_are_those_of_the_folder_then_of_transformers() -> None:
    qwen = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}
    got = chat_sampling(qwen, {"seed": 3})
    assert (got.temperature, got.top_p, got.top_k, got.repetition_penalty) == (0.7, 0.8, 20, 1.05)
    assert (got.seed, got.max_new_tokens) == (3, 512)
    assert chat_sampling(qwen, {"temperature": 0}).greedy
    assert chat_sampling(qwen, {"temperature": 0}).repetition_penalty == 1.05
    assert chat_sampling({}, {}).greedy
    assert chat_sampling({"do_sample": True}, {}).top_k == 50
    assert chat_sampling(qwen, {}).seed != chat_sampling(qwen, {}).seed
    assert chat_sampling(qwen, {"top_k": None}).top_k == 20  # None is "not given"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temprature": 1}, "unknown sampling argument 'temprature'; did you mean 'temperature'"),
        ({"do_sample": True}, "temperature=0 is greedy"),
        ({"top_p": 0.9}, "top_p has no effect"),
        ({"temperature": -1}, "temperature"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
    ],
)
def test_arguments_that_cannot_be_meant(given: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chat_sampling({}, given)


def test_what_the_folder_asks_and_is_not_done_is_said() -> None:
    with pytest.warns(UserWarning, match="num_beams=4"):
        chat_sampling({"num_beams": 4}, {})


def test_folders_that_cannot_chat(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ArtefactError, match=r"no tokenizer\.json"):
        fledge.load(tmp_path)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | {"id": 100_000, "content": "<|more|>"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ArtefactError, match="does not belong to this model"):
        fledge.load(tmp_path)


def test_import_is_light() -> None:
    code = "import sys, fledge; assert 'torch' not in sys.modules; assert fledge.__version__; print('light')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "light\n"
