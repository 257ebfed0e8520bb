"""Scores of models for a batch of pages: names, languages, and a checkpoint's bits per byte against its own logits."""

from __future__ import annotations

import gzip
import json
import math
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus_pages import CHINESE, ENGLISH
from test_corpus_classifier import make as make_classifier
from test_corpus_classifier import prose, shop, write_sets

from fledge.core.config import build
from fledge.core.errors import ArtefactError, ConfigError
from fledge.corpus.judging.toxic import ToxicConfig, Toxicity
from fledge.corpus.scoring.checkpoint import Checkpoint
from fledge.corpus.scoring.scores import Scores, ScoresConfig
from fledge.model.hf import save_decoder
from fledge.stages import ngram

sys.path.insert(0, str(Path(__file__).parents[1] / "generate"))
import generate_cases as cases

TEXTS = [ENGLISH, CHINESE, "A duck swims.", "", ENGLISH * 5]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier, an n-gram model of English, and a model that says random things."""
    folder = tmp_path_factory.mktemp("scores")
    make_classifier(folder / "classifier", write_sets(folder))
    (folder / "en.txt").write_text(ENGLISH, encoding="utf-8")
    ngram.run(build(ngram.Config, {"data": [str(folder / "en.txt")], "least": 1}), folder / "ngram")
    cases.chat_folder(folder / "model", {})
    return folder


def test_values_have_names_and_languages_their_models(folder: Path) -> None:
    values = {
        "classifier": str(folder / "classifier"), "perplexity": {"en": str(folder / "ngram")},
        "checkpoint": str(folder / "model"),
    }  # fmt: skip
    config = build(ScoresConfig, values)
    assert len(config.folders) == 3
    scores = Scores(config, ToxicConfig())
    found = scores.score(TEXTS, ["en", "zh", "en", "en", "en"])
    assert set(found) == {
        "quality.good", "quality.bad", "perplexity.bits_per_character", "perplexity.bits_per_unit",
        "perplexity.unknown", "checkpoint.bits_per_byte", "toxic.density", "toxic.weight",
    }  # fmt: skip
    assert all(column.shape == (5,) and column.dtype == np.float32 for column in found.values())
    assert np.isnan(found["perplexity.bits_per_unit"]).tolist() == [False, True, False, False, False]
    assert (scores.quality(found, 5) == found["quality.good"]).all()
    assert Scores(ScoresConfig()).quality({}, 2).tolist() == [0, 0]


def test_what_is_named_wrongly_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no label 'fine'; it has good, bad"):
        Scores(build(ScoresConfig, {"classifier": str(folder / "classifier"), "label": "fine"}))
    with pytest.raises(ConfigError, match="names a label of a classifier"):
        build(ScoresConfig, {"label": "fine"})
    with pytest.raises(ArtefactError, match="n-gram"):
        Scores(build(ScoresConfig, {"perplexity": {"en": str(folder / "classifier")}}))


def test_bits_per_byte_are_those_of_the_logits(folder: Path) -> None:
    found = Checkpoint(folder / "model").score(TEXTS, [""] * len(TEXTS))["bits_per_byte"]
    words = cases.tokenizer()
    decoder = cases.decoder(cases.shape(words.vocab_size))
    context = decoder.config.max_position_embeddings
    for text, value in zip(TEXTS, found, strict=True):
        if not text:
            assert math.isnan(value)
            continue
        ids = [*words.encode(text), words.endoftext]
        nats = 0.0
        for begin in range(0, len(ids) - 1, context - 1):
            piece = ids[begin : begin + context]
            logp = torch.log_softmax(cases.packed_logits(decoder, piece), -1)
            nats -= float(logp[torch.arange(len(piece) - 1), torch.tensor(piece[1:])].sum())
        assert value == pytest.approx(nats / math.log(2) / len(text.encode()), rel=1e-4)


def test_only_the_beginning_of_a_text_is_read(folder: Path) -> None:
    cut, whole = (Checkpoint(folder / "model", size).score([ENGLISH], ["en"])["bits_per_byte"] for size in (40, 4000))
    assert cut == Checkpoint(folder / "model").score([ENGLISH[:40]], ["en"])["bits_per_byte"] != whole


def test_a_model_that_knows_nothing_gives_every_token_the_same(tmp_path: Path) -> None:
    words = cases.tokenizer()
    decoder = cases.Decoder(cases.shape(words.vocab_size))
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.zero_()
    save_decoder(decoder, tmp_path)
    words.save(tmp_path)
    (found,) = Checkpoint(tmp_path).score([ENGLISH], ["en"])["bits_per_byte"]
    assert found == pytest.approx(len(words.encode(ENGLISH)) * math.log2(words.vocab_size) / len(ENGLISH), rel=1e-5)


def test_tokens_of_a_tokenizer_can_be_counted(folder: Path, tmp_path: Path) -> None:
    values = {
        "data": [str(folder / "en.txt")], "units": {"kind": "tokens"}, "tokenizer": str(folder / "model"), "least": 1,
    }  # fmt: skip
    ngram.run(build(ngram.Config, values), tmp_path / "n")
    model = ngram.NgramModel.load(tmp_path / "n")
    found = model.bits([ENGLISH, "A duck swims."])
    assert found["units"][0] == len(cases.tokenizer().encode(ENGLISH)) + 1
    assert found["bits"][0] / found["units"][0] < 2 < found["bits"][1] / found["units"][1]


def test_abuse_by_list_or_by_classifier(folder: Path, tmp_path: Path) -> None:
    toxicity = Toxicity(ToxicConfig())
    rude = "You stupid idiot, shut up, you worthless moron."
    density, weight = (values.tolist() for values in toxicity.score([rude, ENGLISH], ["en", "en"]).values())
    assert toxicity.broken(density[0], weight[0]) == ("insults", density[0], 1.5)
    assert toxicity.broken(density[1], weight[1]) is None
    weights = toxicity.score(["garbage " * 9, "a stupid clown and garbage " + "trash " * 9], ["en"] * 2)["weight"]
    assert weights.tolist() == [0, 2], "a word with an innocent use counts beside an insult, and as much as it"
    sets = write_sets(tmp_path)
    make_classifier(tmp_path / "c", {"clean": sets["good"], "toxic": sets["bad"]})
    with_model = Toxicity(build(ToxicConfig, {"classifier": str(tmp_path / "c"), "probability": 0.7}))
    rng = random.Random(4)
    found = with_model.score([shop(rng, "en"), prose(rng, "en")], ["en", "en"])["probability"].tolist()
    assert with_model.broken(0, 0, found[0]) == ("classifier", found[0], 0.7)
    assert with_model.broken(0, 0, found[1]) is None
    assert json.loads((tmp_path / "c" / "config.json").read_text())["labels"] == ["clean", "toxic"]


def test_words_with_an_innocent_use_drop_nothing_alone(real_data: Path) -> None:
    toxicity = Toxicity(ToxicConfig())
    rows = gzip.decompress((real_data / "eval/gsm8k/train.jsonl.gz").read_bytes()).decode().splitlines()
    texts = ["The garbage truck takes the trash, and all the garbage of the town. " * 3, "蠢蠢黄金初脱后。"] + [
        json.loads(row)["question"] for row in rows[:3000]
    ]
    values = toxicity.score(texts, ["en"] * len(texts))
    pairs = zip(values["density"].tolist(), values["weight"].tolist(), strict=True)
    assert [text for text, pair in zip(texts, pairs, strict=True) if toxicity.broken(*pair)] == []
