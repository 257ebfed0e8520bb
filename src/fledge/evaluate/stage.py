"""Stage `evaluate`: a model's replies to tasks, scored.

Writes `results.jsonl` (one line an item), `scores.json` (per skill and language, with 95% intervals, wordings and
levels apart, and what was skipped and why) and, with `questions`, `answers.json`. Greedy by default. Replies are kept
as they come, so an interrupted evaluation goes on.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from fledge.core.artefact import produce, write_json
from fledge.core.bench import Bench
from fledge.core.config import Config as BaseConfig
from fledge.core.errors import DataError
from fledge.core.progress import progress
from fledge.core.readers import read_records, write_jsonl
from fledge.core.records import Message, Task
from fledge.evaluate import following
from fledge.evaluate.metrics import estimate as interval
from fledge.evaluate.prompts import Style
from fledge.evaluate.replies import Ask, Writer
from fledge.reward import sandbox, verifiers

PORTION = 8  # batches between two writes to disk: what an interruption may cost
_REPLIES = "replies.jsonl"


class Config(BaseConfig):
    """What is evaluated, on what, how."""

    model: Path = Field(description="folder of the model")
    tasks: Path | tuple[Path, ...] = Field(description="file or files of Task records")
    prompt: Style = Field("chat", description="chat: the model's chat format; plain: question and answer as text")
    limit: int | None = Field(None, ge=1, description="at most so many items per skill and language, drawn by `seed`")
    skills: tuple[str, ...] | None = Field(None, description="only these skills")
    max_new_tokens: int = Field(160, ge=1)
    temperature: float = Field(0.0, ge=0, description="0 is greedy")
    batch: int = Field(64, ge=1, description="replies generated side by side")
    questions: Path | None = Field(None, description="JSON file with the questions that are answered side by side")
    bootstrap: int = Field(1000, ge=0, description="resamples of the intervals")
    corpus: Path | None = Field(
        None, description="a corpus that was decontaminated against these tasks: scores of the items that share "
        "nothing with it stand beside those of all"
    )  # fmt: skip
    code: bool = Field(True, description="run code that the model writes, where the machine can confine it")
    seed: int = 0

    @property
    def task_files(self) -> list[Path]:
        return [self.tasks] if isinstance(self.tasks, Path) else list(self.tasks)


Skipped = list[tuple[Task, str]]
Row = dict[str, Any]


def run(config: Config, out: Path, redo: bool = False) -> Path:
    """Evaluate. Returns the artefact's folder. Raises DataError for unusable tasks."""
    inputs: dict[str, Any] = {"model": config.model, "tasks": config.task_files}
    if config.questions is not None:
        inputs["questions"] = config.questions
    if config.corpus is not None:
        inputs["corpus"] = config.corpus
    with produce(
        out, kind="evaluation", stage="evaluate", config=config, inputs=inputs, seed=config.seed, redo=redo
    ) as work:
        if work.done:
            return out
        started = time.monotonic()
        tasks = read_tasks(config)
        skipped: Skipped = []
        tasks, guard = without_code(tasks, config.code, skipped)
        replies = _replies(config, tasks, skipped, work.folder)
        rows = score_rows(tasks, replies)
        if config.corpus is not None:
            verdicts = read_verdicts(config.corpus, tasks)
            rows = [{**row, "seen": verdicts[row["id"]]} for row in rows]
        write_jsonl(work.folder / "results.jsonl", rows)
        scores = summarise(rows, skipped, config.bootstrap, config.seed) | {"prompt": config.prompt, "sandbox": guard}
        write_json(work.folder / "scores.json", scores)
        (work.folder / _REPLIES).unlink(missing_ok=True)
        work.metrics.update(_metrics(scores, rows, time.monotonic() - started))
    return out


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    """Items, tokens and seconds. Nothing where the number of tasks or the shape of the model is not known yet."""
    from fledge.evaluate.forecast import answer_tokens, items_of, shape_of
    from fledge.generate.rate import tokens_per_second

    items, shape = items_of(config, bench), shape_of(config, bench)
    if not items or shape is None:
        return {}
    tokens = items * answer_tokens(config, bench)
    rate = 2000.0
    if bench.measure:
        key = f"evaluate {shape.parameters} {config.batch}"
        rate = bench.once(key, lambda: tokens_per_second(shape, min(config.batch, items), bench.seconds))
    return {"items": items, "tokens": tokens, "seconds": 1.5 + items * 0.001 + tokens / rate}


# ---- tasks -----------------------------------------------------------------------------------------------------------


def read_tasks(config: Config) -> list[Task]:
    """All tasks of the files, checked, cut to `limit` per skill and language by a seeded draw."""
    tasks: list[Task] = []
    seen: dict[str, Path] = {}
    for path in config.task_files:
        for task in read_records(path, Task):
            if task.id in seen:
                raise DataError(
                    f"{path}: task id {task.id!r} occurs twice (first in {seen[task.id]}); ids must be unique"
                )
            seen[task.id] = path
            verifiers.validate(task)
            tasks.append(task)
    if config.skills is not None:
        missing = set(config.skills) - {task.skill for task in tasks}
        if missing:
            raise DataError(
                f"no tasks of skill {', '.join(sorted(missing))} in {', '.join(map(str, config.task_files))}"
            )
        tasks = [task for task in tasks if task.skill in config.skills]
    if not tasks:
        raise DataError(f"no tasks in {', '.join(map(str, config.task_files))}")
    return tasks if config.limit is None else _draw(tasks, config.limit, config.seed)


def read_verdicts(corpus: Path, tasks: Sequence[Task]) -> dict[str, str]:
    """By task: clean, shared or short, as the corpus found (tests.json). Raises DataError for one it does not know."""
    try:
        items = json.loads((corpus / "tests.json").read_text(encoding="utf-8"))["items"]
    except (OSError, ValueError, KeyError) as problem:
        raise DataError(f"{corpus}: has no tests.json; make it with decontaminate=[TASKS] ({problem})") from None
    unknown = [task.id for task in tasks if task.id not in items]
    if unknown:
        raise DataError(f"{corpus}: was not compared with {len(unknown)} of these tasks, as {unknown[0]!r}")
    return {task.id: items[task.id]["verdict"] for task in tasks}


def _draw(tasks: list[Task], limit: int, seed: int) -> list[Task]:
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, task in enumerate(tasks):
        groups[task.skill, task.language].append(place)
    kept: list[int] = []
    for (skill, language), places in sorted(groups.items()):
        rng = random.Random(f"{seed}/{skill}/{language}")
        kept += rng.sample(places, limit) if len(places) > limit else places
    return [tasks[place] for place in sorted(kept)]


def without_code(tasks: list[Task], code: bool, skipped: Skipped) -> tuple[list[Task], str]:
    """The tasks that can be scored here, and what confines code. Tasks that would run code are set aside where it may
    not or cannot be run safely."""
    if not any(task.verifier == "python_tests" for task in tasks):
        return tasks, "not needed"
    if not code:
        guard, reason = "not used", "running code is switched off (code=false)"
    else:
        try:
            found = sandbox.protection()
            return tasks, f"{found.kind} ({found.detail})"
        except sandbox.SandboxUnavailable as problem:
            guard, reason = "unavailable", str(problem)
    skipped += [(task, reason) for task in tasks if task.verifier == "python_tests"]
    return [task for task in tasks if task.verifier != "python_tests"], guard


# ---- replies ---------------------------------------------------------------------------------------------------------


def _replies(config: Config, tasks: list[Task], skipped: Skipped, folder: Path) -> dict[str, Row]:
    """Reply of every task that fits, by id; writes answers.json."""
    from fledge.generate.loaded import load

    writer = Writer(config, load(config.model))
    asks: list[Ask] = []
    for task in tasks:
        found = writer.ask(task.id, task.messages, task.language)
        if isinstance(found, Ask):
            asks.append(found)
        else:
            skipped.append((task, found))
    replies = _generate(config, writer, asks, folder / _REPLIES)
    if config.questions is not None:
        write_json(folder / "answers.json", {"prompt": config.prompt, "answers": _answers(config.questions, writer)})
    return replies


def _generate(config: Config, writer: Writer, asks: list[Ask], path: Path) -> dict[str, Row]:
    """Replies by id. Those that an interrupted run left in `path` are kept."""
    replies = {row["id"]: row for row in _kept(path)}
    # Like lengths side by side waste least. A portion is several batches, so that places which become free are used.
    left = sorted((ask for ask in asks if ask.key not in replies), key=lambda ask: (len(ask.ids), ask.key))
    portion = PORTION * config.batch
    with (
        progress("evaluate", len(asks), unit="items", done=len(asks) - len(left)) as bar,
        path.open("a", encoding="utf-8") as file,
    ):
        for start in range(0, len(left), portion):
            rows = writer.answer(left[start : start + portion], bar.advance)
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            file.flush()
            replies.update((row["id"], row) for row in rows)
    return replies


def _kept(path: Path) -> Iterable[Row]:
    if not path.exists():
        return
    whole = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    path.write_bytes(b"".join(whole))  # the last line may be torn
    for line in whole:
        yield json.loads(line)


def _answers(path: Path, writer: Writer) -> list[dict[str, Any]]:
    rows: list[Row] = []
    asks: list[Ask] = []
    for number, question in enumerate(read_questions(path)):
        found = writer.ask(str(number), [Message(role="user", content=question["prompt"])], question["language"])
        if isinstance(found, Ask):
            asks.append(found)
            rows.append(dict(question))
        else:
            rows.append(question | {"reply": "", "skipped": found})
    for row in writer.answer(asks):
        rows[int(row["id"])] |= {key: row[key] for key in ("reply", "tokens", "finish")}
    return rows


def read_questions(path: Path) -> list[dict[str, str]]:
    """Questions as `{"kind", "language", "prompt", "expect"}`, from a JSON list, or under `six_questions` or
    `questions` of a JSON object. An entry is a text, or an object with `prompt` and, if known, `language`, `kind` (or
    `name`) and `expect`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise DataError(f"{path}: no JSON of questions: {problem}") from None
    entries = value.get("six_questions", value.get("questions")) if isinstance(value, dict) else value
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: expected a list of questions, or an object with the key six_questions or questions")
    questions = []
    for number, entry in enumerate(entries):
        entry = {"prompt": entry} if isinstance(entry, str) else entry
        prompt = entry.get("prompt") if isinstance(entry, dict) else None
        if not isinstance(prompt, str) or not prompt.strip():
            raise DataError(f"{path}: question {number + 1} has no text under `prompt`")
        language = entry.get("language") or ("zh" if any("一" <= letter <= "鿿" for letter in prompt) else "en")
        kind = entry.get("kind", entry.get("name", ""))
        question = {"kind": str(kind), "language": str(language), "prompt": prompt}
        questions.append(question | ({"expect": str(entry["expect"])} if "expect" in entry else {}))
    return questions


# ---- scores ----------------------------------------------------------------------------------------------------------


def score_rows(tasks: list[Task], replies: dict[str, Row]) -> list[Row]:
    """One row an item, in the order of the tasks."""
    answered = [task for task in tasks if task.id in replies]
    scores = verifiers.score_many([(task, replies[task.id]["reply"]) for task in answered])
    rows = []
    for task, score in zip(answered, scores, strict=True):
        reply = replies[task.id]
        more = {"followed": following.followed(task, reply["reply"])} if task.verifier == "instructions" else {}
        rows.append(
            {
                "id": task.id,
                "skill": task.skill,
                "language": task.language,
                "wording": task.meta.get("wording"),
                "level": task.meta.get("level"),
                "prompt": [message.plain() for message in task.messages],
                "reply": reply["reply"],
                "score": score.value,
                "detail": score.detail,
                "tokens": reply["tokens"],
                "finish": reply["finish"],
                **more,
            }
        )
    return rows


def summarise(rows: list[Row], skipped: Skipped, resamples: int, seed: int) -> dict[str, Any]:
    """`{"skills": {skill: {language: {mean, low, high, n, wording: {...}, level: {...}}}}, "skipped": [...], ...}`;
    ``seen``, as wording: clean, shared and short items apart, where a corpus is named; ``following``: the four numbers
    of IFEval where instructions were given (`evaluate.following`)."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["skill"], row["language"]].append(row)
    skills: dict[str, dict[str, Any]] = defaultdict(dict)
    for (skill, language), members in sorted(groups.items()):
        entry: dict[str, Any] = interval([row["score"] for row in members], resamples, seed).plain()
        for key in ("wording", "level", "seen"):
            parts: dict[str, list[float]] = defaultdict(list)
            for row in members:
                if row.get(key) is not None:
                    parts[str(row[key])].append(row["score"])
            if parts:
                entry[key] = {name: interval(values, resamples, seed).plain() for name, values in sorted(parts.items())}
        if found := [row["followed"] for row in members if "followed" in row]:
            entry["following"] = following.summarise(found, resamples, seed)
        entry["cut"] = sum(row["finish"] == "length" for row in members)
        skills[skill][language] = entry
    counts = Counter((task.skill, task.language, reason) for task, reason in skipped)
    return {
        "items": len(rows),
        "skills": dict(skills),
        "skipped": [
            {"skill": skill, "language": language, "reason": reason, "n": n}
            for (skill, language, reason), n in sorted(counts.items())
        ],
        "bootstrap": resamples,
        "seed": seed,
    }


def _metrics(scores: dict[str, Any], rows: list[Row], seconds: float) -> dict[str, Any]:
    return {
        "items": len(rows),
        "skipped": sum(entry["n"] for entry in scores["skipped"]),
        "tokens": sum(row["tokens"] for row in rows),
        "tokens_per_second": round(sum(row["tokens"] for row in rows) / max(seconds, 1e-9), 1),
        "scores": {
            f"{skill}/{language}": round(entry["mean"], 4)
            for skill, languages in scores["skills"].items()
            for language, entry in languages.items()
        },
    }
