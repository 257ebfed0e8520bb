"""The stage: same seed, same bytes; schemas; sizes; the user's own name."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from fledge.core.artefact import read_manifest
from fledge.core.errors import DataError
from fledge.core.readers import read_records
from fledge.core.records import Conversation, Preference, Task
from fledge.microworld import presets
from fledge.microworld.generate import Config, generate, run
from fledge.microworld.skills.table import LANGUAGES, SFT_SHARES, SKILLS


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smoke")
    generate(presets["smoke"], folder)
    return folder


def test_same_seed_same_bytes_other_seed_other_world(smoke: Path, tmp_path: Path) -> None:
    generate(presets["smoke"], tmp_path / "again")
    assert _digests(smoke) == _digests(tmp_path / "again")
    generate(presets["smoke"].model_copy(update={"seed": 1}), tmp_path / "other")
    one = json.loads((smoke / "world.json").read_text(encoding="utf-8"))
    other = json.loads((tmp_path / "other" / "world.json").read_text(encoding="utf-8"))
    assert not set(one["knows"]["en"]["people"]) & set(other["knows"]["en"]["people"])
    same = [k for k, v in _digests(smoke).items() if _digests(tmp_path / "other")[k] == v]
    assert same == []


def test_rows_are_records_of_the_sizes_asked_for(smoke: Path) -> None:
    config = presets["smoke"]
    conversations = list(read_records(smoke / "sft.jsonl", Conversation))
    assert len(conversations) == config.sft_conversations
    assert {c.meta["skill"] for c in conversations} == {*SFT_SHARES, "about", "digits", "talk"}
    assert {c.meta["language"] for c in conversations} == set(LANGUAGES)
    assert any(len(c.messages) >= 4 for c in conversations)
    assert any(c.messages[0].role == "system" for c in conversations)
    assert len(list(read_records(smoke / "preferences.jsonl", Preference))) == config.preference_pairs
    tasks = list(read_records(smoke / "tasks.jsonl", Task))
    tests = list(read_records(smoke / "test.jsonl", Task))
    assert len(tasks) == config.rl_tasks
    assert len(tests) == len(SKILLS) * len(LANGUAGES) * config.tests_per_skill
    assert len({t.id for t in tests + tasks}) == len(tests) + len(tasks)
    assert {t.meta["wording"] for t in tests} == {"seen", "held_out"}
    assert {t.meta["wording"] for t in tasks} == {"seen"}


def test_hard_sums_are_for_reinforcement_learning_only(smoke: Path) -> None:
    tasks = list(read_records(smoke / "tasks.jsonl", Task))
    assert sum(t.skill == "hard_sums" for t in tasks) > 0.6 * len(tasks)
    assert sum(t.skill == "arithmetic" for t in tasks) > 0.05 * len(tasks)  # not to be forgotten
    for conversation in read_records(smoke / "sft.jsonl", Conversation):
        for key in conversation.meta["keys"]:
            if key.startswith("sum:"):
                low, high = sorted(int(n) for n in key.removeprefix("sum:").split("+"))
                assert low < 100, "an instruction shows a sum as hard as the tasks'"
                assert high < 1000


def test_pairing_digits_adds_nothing(smoke: Path) -> None:
    """The exercise shows which digits meet, up to three and three, and no result."""
    widths = set()
    for conversation in read_records(smoke / "sft.jsonl", Conversation):
        if conversation.meta["skill"] != "digits":
            continue
        question, answer = (m.content for m in conversation.messages[-2:])
        a, b = re.findall(r"\d+", question)
        pairs = re.findall(r"(\d)\+(\d)", answer)
        assert [int("".join(column)[::-1]) for column in zip(*pairs, strict=True)] == [int(a), int(b)]
        assert "=" not in answer
        widths.add((len(a), len(b)))
    assert widths == {(3, 3), (3, 2), (2, 3), (2, 2)}


def test_the_assistants_name_is_only_where_it_is_taught(smoke: Path) -> None:
    config = presets["smoke"]
    for conversation in read_records(smoke / "sft.jsonl", Conversation):
        for message in conversation.messages:
            assert config.name("en") not in message.content
            assert config.name("zh") not in message.content
    pairs = [p for p in read_records(smoke / "preferences.jsonl", Preference) if p.meta["skill"] == "identity"]
    assert len(pairs) > 20
    for pair in pairs:
        assert config.name(pair.meta["language"]) in pair.chosen
        assert config.name(pair.meta["language"]) not in pair.rejected
    truth = [json.loads(line) for line in (smoke / "truth.jsonl").read_text(encoding="utf-8").splitlines()]
    about = [r for r in truth if config.name("en") in r["text"] or config.name("zh") in r["text"]]
    assert about
    assert {r["kind"] for r in about} == {"assistant"}


def test_a_user_names_the_assistant(tmp_path: Path) -> None:
    generate(presets["smoke"].model_copy(update={"assistant_name": "小雀"}), tmp_path)
    text = (tmp_path / "preferences.jsonl").read_text(encoding="utf-8")
    assert "我是小雀，" in text
    assert "I am 小雀, " in text
    assert "Fledgling" not in text
    names = {tuple(t.answer["all"]) for t in read_records(tmp_path / "test.jsonl", Task) if t.skill == "identity"}
    assert names == {("小雀",)}


def test_world_card_has_six_questions_in_both_languages(smoke: Path) -> None:
    card = json.loads((smoke / "world.json").read_text(encoding="utf-8"))
    kinds = ["identity", "sum", "fact", "translation", "harmful", "unknown"]
    for language in LANGUAGES:
        asked = [q for q in card["six_questions"] if q["language"] == language]
        assert [q["name"] for q in asked] == kinds
        assert all(q["prompt"] and q["expect"] for q in asked)
        assert len(card["knows"][language]["people"]) == presets["smoke"].people
        assert card["try"][language]


def test_run_makes_an_artefact_and_skips_a_finished_one(tmp_path: Path) -> None:
    out = tmp_path / "world"
    run(presets["smoke"], out)
    manifest = read_manifest(out)
    assert manifest["kind"] == manifest["stage"] == "microworld"
    assert manifest["metrics"]["pages"] == presets["smoke"].pages
    before = (out / "manifest.json").stat().st_mtime_ns
    run(presets["smoke"], out)
    assert (out / "manifest.json").stat().st_mtime_ns == before


def test_a_world_too_small_for_its_tests_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fewer tests_per_skill"):
        generate(Config(people=4, places=4, pages=20, tests_per_skill=1000, sft_conversations=20), tmp_path)


@pytest.mark.long
def test_the_laptop_size_gives_enough_text(tmp_path: Path) -> None:
    metrics = generate(presets["laptop"], tmp_path)
    assert 1.5e6 < metrics["tokens_estimated"] < 2.5e6
    assert metrics["pages"] == presets["laptop"].pages == 5500
