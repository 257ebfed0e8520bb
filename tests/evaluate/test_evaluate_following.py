"""The four numbers of IFEval: by hand, and of a model that knows nothing on the file itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fledge.commands.evaluate import evaluate
from fledge.core.records import Message, Task
from fledge.evaluate.following import LEVELS, followed, summarise
from fledge.evaluate.metrics import share
from fledge.reward.instructions import kinds


def task(*names: str) -> Task:
    answer = {"instructions": list(names), "kwargs": [{}] * len(names)}
    return Task(id="t", messages=(Message(role="user", content="?"),), verifier="instructions", answer=answer)


def test_the_four_numbers_by_hand() -> None:
    """Three prompts with one, two and three instructions; an introduction costs the strict reading a quotation."""
    both = ("startend:quotation", "punctuation:no_comma")
    found = [
        followed(task("punctuation:no_comma"), "One, two."),  # 0 of 1, loosely too
        followed(task(*both), 'Sure:\n"One."'),  # 1 of 2, loosely 2
        followed(task(*both, "detectable_format:title"), '"<<A>> one."'),  # 3 of 3
    ]
    scores = summarise(found, 1000, 0)
    means = [round(scores[level]["mean"], 6) for level in LEVELS]
    assert means == [round(1 / 3, 6), round(2 / 3, 6), round(4 / 6, 6), round(5 / 6, 6)]
    assert [scores[level]["n"] for level in LEVELS] == [3, 3, 6, 6]
    assert all(scores[level]["low"] <= scores[level]["mean"] <= scores[level]["high"] for level in LEVELS)
    assert scores["kinds"]["startend:quotation"] == {"n": 2, "strict": 0.5, "loose": 1.0}


def test_an_empty_reply_follows_nothing() -> None:
    assert followed(task("punctuation:no_comma"), " \n") == {
        "names": ["punctuation:no_comma"], "strict": [False], "loose": [False],
    }  # fmt: skip


def test_intervals_of_instructions_are_drawn_over_prompts() -> None:
    """Ten instructions that stand or fall with one reply tell as much as one: the interval is as wide as of prompts."""
    parts, wholes = [10.0, 0.0] * 10, [10.0] * 20
    found = share(parts, wholes, 2000, 0)
    assert (found.mean, found.n) == (0.5, 200)
    alone = share([1.0, 0.0] * 10, [1.0] * 20, 2000, 0)
    assert (found.low, found.high) == (alone.low, alone.high)
    assert found.high - found.low > 0.3
    with pytest.raises(ValueError, match="a whole above 0"):
        share([0.0], [0.0])


@pytest.mark.parametrize("items", [24, pytest.param(271, marks=pytest.mark.long)])
def test_ifevals_own_file_through_the_door(
    items: int, real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`fledge evaluate MODEL --tasks FILE`, with a model of random weights."""
    from fledge.model.config import DecoderConfig
    from fledge.model.decoder import Decoder
    from fledge.model.hf import save_decoder
    from fledge.tokenizer import bpe

    path = real_data / "eval" / "ifeval_even" / "input_data_even.jsonl"
    tokenizer = bpe.train([path.read_text(encoding="utf-8")], 512)
    config = DecoderConfig(
        vocab_size=512, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=1200,
    )  # fmt: skip
    decoder = Decoder(config)
    decoder.initialise(0)
    save_decoder(decoder, tmp_path / "model", {"eos_token_id": tokenizer.im_end})
    tokenizer.save(tmp_path / "model")
    evaluate(tmp_path / "model", path, ["max_new_tokens=8", f"limit={items}"], tmp_path / "scores", False, False)
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    entry = scores["skills"]["instructions"][""]
    found = entry["following"]
    assert scores["items"] == items
    assert found["prompt_strict"]["mean"] == entry["mean"]
    assert found["prompt_strict"]["mean"] <= found["prompt_loose"]["mean"]
    assert found["instruction_strict"]["mean"] <= found["instruction_loose"]["mean"]
    assert found["instruction_strict"]["n"] == sum(kind["n"] for kind in found["kinds"].values()) > scores["items"]
    assert set(found["kinds"]) == set(kinds()) if items == 271 else set(found["kinds"]) < set(kinds())
    said = " ".join(capsys.readouterr().out.split())
    assert "prompt strict" in said
    assert f"{found['instruction_strict']['n']} instructions" in said
