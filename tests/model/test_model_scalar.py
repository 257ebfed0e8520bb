"""The scalar head: transformers' scores, its folders in and out, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from model_cases import config, decoder
from safetensors.torch import load_file, save_file

from fledge.core.errors import ArtefactError
from fledge.model.decoder import Decoder
from fledge.model.hf import load_decoder, save_decoder
from fledge.model.scalar import ScalarDecoder, load_scalar, save_scalar
from fledge.train.batch import Example, Segment
from fledge.train.scoring import end_scalars

PAD = 130
ANSWERS = [[7, 8, 9, 2], [5, 2], [11, 12, 13, 14, 15, 2]]
PROMPT = [1, 50, 60, 70, 3]


def scalar(architecture: str = "Qwen2ForCausalLM", tied: bool = True, language_head: bool = False) -> ScalarDecoder:
    shape = config(architecture, tie_word_embeddings=tied)
    made = ScalarDecoder(shape, language_head)
    made.load_state_dict(decoder(shape).state_dict(), strict=False)
    made.start_score("normal", 3)
    return made


def group(prompt: list[int], answers: list[list[int]]) -> Example:
    """A prompt and its answers; nothing is predicted."""
    parts = [(prompt, -1), *((answer, 0) for answer in answers)]
    return Example(tuple(Segment(np.array(ids, np.int32), np.zeros(len(ids), np.float32), p) for ids, p in parts))


@pytest.mark.parametrize("architecture", ["Qwen2ForCausalLM", "LlamaForCausalLM"])
@pytest.mark.parametrize("tied", [True, False])
def test_transformers_reads_the_same_scores(architecture: str, tied: bool, tmp_path: Path) -> None:
    """Answers padded to one length there, children of one prompt here."""
    transformers = pytest.importorskip("transformers")
    ours = scalar(architecture, tied)
    save_scalar(ours, tmp_path, PAD)
    theirs, report = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert theirs.config.num_labels == 1
    width = len(PROMPT) + max(map(len, ANSWERS))
    rows = torch.full((len(ANSWERS), width), PAD)
    for row, answer in zip(rows, ANSWERS, strict=True):
        row[: len(PROMPT) + len(answer)] = torch.tensor(PROMPT + answer)
    with torch.no_grad():
        expected = theirs(input_ids=rows, attention_mask=(rows != PAD).long()).logits[:, 0]
    scores = end_scalars([group(PROMPT, ANSWERS)], load_scalar(tmp_path), torch.float32, 64)[1:]
    torch.testing.assert_close(torch.from_numpy(scores), expected, atol=1e-5, rtol=1e-5)
    assert np.ptp(scores) > 0.1


def test_transformers_own_folder_is_read(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.Qwen2ForSequenceClassification(
        transformers.Qwen2Config(
            vocab_size=131, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=6,
            num_key_value_heads=2, max_position_embeddings=256, num_labels=1, pad_token_id=PAD,
        )
    ).eval()  # fmt: skip
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = [float(theirs(torch.tensor([PROMPT + answer])).logits) for answer in ANSWERS]
    scores = end_scalars([group(PROMPT, ANSWERS)], load_scalar(tmp_path), torch.float32, 64)[1:]
    np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_a_language_model_begins_with_a_new_score(tied: bool, tmp_path: Path) -> None:
    """Its body as it is, more rows than ids included; the score drawn from the seed with variance 1/(h+1), or 0."""
    model = decoder(config(vocab_size=160, tie_word_embeddings=tied, hidden_size=480, num_attention_heads=60))
    save_decoder(model, tmp_path)
    made = load_scalar(tmp_path, seed=1)
    body = dict(model.named_parameters())
    for name, parameter in made.named_parameters():
        assert name == "score.weight" or torch.equal(parameter, body[name]), name
    assert not hasattr(made, "lm_head")
    assert float(made.score.weight.detach().std()) == pytest.approx(481**-0.5, rel=0.1)
    assert torch.equal(made.score.weight, load_scalar(tmp_path, seed=1).score.weight)
    assert not torch.equal(made.score.weight, load_scalar(tmp_path, seed=2).score.weight)
    assert not load_scalar(tmp_path, start="zero").score.weight.any()
    both = load_scalar(tmp_path, language_head=True)
    assert torch.equal(both.output_weight, model.output_weight)


def test_there_and_back(tmp_path: Path) -> None:
    """An untied head over the vocabulary is left behind, and asking for it later is refused."""
    model = scalar(tied=False, language_head=True)
    save_scalar(model, tmp_path, PAD)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    back = load_scalar(tmp_path)
    assert torch.equal(back.score.weight, model.score.weight)
    with pytest.raises(ArtefactError, match="holds no head over the vocabulary"):
        load_scalar(tmp_path, language_head=True)
    with pytest.raises(ArtefactError, match="reward or value model"):
        load_decoder(tmp_path)


def test_what_is_refused(tmp_path: Path) -> None:
    save_scalar(scalar(), tmp_path, PAD)
    path, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"id2label": {"0": "no", "1": "yes"}}))
    with pytest.raises(ArtefactError, match="2 labels"):
        load_scalar(tmp_path)
    path.write_text(json.dumps({k: v for k, v in values.items() if k != "id2label"}))
    with pytest.raises(ArtefactError, match="2 labels"):  # transformers' default
        load_scalar(tmp_path)
    path.write_text(json.dumps(values))
    tensors = load_file(weights)
    save_file({**tensors, "score.bias": torch.zeros(1)}, weights)
    with pytest.raises(ArtefactError, match=r"unexpected tensor 'score\.bias'"):
        load_scalar(tmp_path)
    save_file({k: v for k, v in tensors.items() if k != "score.weight"}, weights)
    with pytest.raises(ArtefactError, match=r"lack tensor 'score\.weight'"):
        load_scalar(tmp_path)


def test_a_head_that_is_not_there_is_not_asked_for(tmp_path: Path) -> None:
    from fledge.train.scoring import reference_logp

    example = group(PROMPT, ANSWERS[:1])
    with pytest.raises(ValueError, match="no scalar head"):
        end_scalars([example], Decoder(config()), torch.float32, 64)
    with pytest.raises(ValueError, match="no head over the vocabulary"):
        reference_logp([example], scalar(), torch.float32, 64)
