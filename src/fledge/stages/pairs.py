"""Stage pairs: a strong model's answers chosen, a weak one's rejected (CT-LLM's synthetic pairs, SPEC I.3).

Either side is a model folder, whose answers our engine samples, or a file of conversations that it has answered. Both
answer the same prompts; what makes no pair is counted by reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from fledge.core import config as core_config
from fledge.core.artefact import produce
from fledge.core.bench import Bench
from fledge.core.errors import DataError
from fledge.core.progress import progress
from fledge.core.readers import OnError, read_rows, write_jsonl
from fledge.core.records import Conversation, Message, Preference, Task
from fledge.core.row_shapes import to_record
from fledge.generate.engine import Engine, Request
from fledge.generate.loaded import load
from fledge.generate.sampling import Sampling
from fledge.model.adapters import is_adapter
from fledge.tokenizer.chat import encode_prompt

Prompt = tuple[Message, ...]
_AT_ONCE = 256  # prompts; their answers are written down before the next are sampled
Answers = Mapping[Prompt, tuple[str, str]]  # (answer, how it ended: "stop" where it is whole)
_TYPICAL_TOKENS = 300  # of a pair, for the forecast


class Config(core_config.Config):
    """CT-LLM: chosen of alpaca-gpt4, rejected of Baichuan-6B."""

    strong: Path = Field(description="model folder, or file of conversations whose last turn is its answer")
    weak: Path = Field(description="the same of the model whose answers are rejected")
    prompts: tuple[Path, ...] = Field(
        default=(), description="conversations, pairs or tasks; needed where both are models, else those of the file"
    )
    limit: int | None = Field(default=None, ge=1, description="the first so many prompts")
    sampling: Sampling = Field(default=Sampling(temperature=0.7, max_new_tokens=256), description="of both models")
    max_rows: int = Field(default=64, gt=0, description="answers generated side by side")
    on_error: OnError = "fail"
    seed: int = 0

    @model_validator(mode="after")
    def _prompts_known(self) -> Config:
        if not self.prompts and _is_model(self.strong) and _is_model(self.weak):
            raise ValueError("prompts: both sides are models; name the files whose prompts they answer")
        return self


def run(config: Config, out: Path, redo: bool = False) -> None:
    """Write ``pairs.jsonl`` at ``out``, and what each model has answered. Raises `DataError` where no pair is left."""
    inputs: dict[str, Path | Sequence[Path]] = {"strong": config.strong, "weak": config.weak, "prompts": config.prompts}
    with produce(out, kind="records", stage="pairs", config=config, inputs=inputs, seed=config.seed, redo=redo) as work:
        if work.done:
            return
        bad: list[str] = []
        more: Counter[str] = Counter()
        prompts = _prompts(config, bad)
        sides = {
            name: _sampled(config, path, prompts, work.folder / f"{name}.jsonl", number)
            if _is_model(path)
            else _written(path, config.on_error, bad, more, name)
            for number, (name, path) in enumerate((("strong", config.strong), ("weak", config.weak)))
        }
        counts: Counter[str] = Counter()
        pairs = [p for p in (_pair(prompt, sides, counts) for prompt in prompts) if p is not None]
        if not pairs:
            raise DataError(f"{config.strong} and {config.weak}: no pair in {len(prompts)} prompts: {dict(counts)}")
        write_jsonl(work.folder / "pairs.jsonl", pairs)
        bad = list(dict.fromkeys(bad))  # a file may be read for its prompts and for its answers
        if bad:
            rows = (message.partition(": ") for message in bad)
            write_jsonl(work.folder / "skipped.jsonl", [{"place": place, "reason": why} for place, _, why in rows])
        work.metrics |= {
            "prompts": len(prompts), "pairs": len(pairs), "left_out": dict(counts), "skipped": len(bad),
            "second_answers_unused": dict(more),
        }  # fmt: skip


def _is_model(path: Path) -> bool:
    return (Path(path) / "config.json").is_file() or is_adapter(Path(path))


def _prompt_files(config: Config) -> Sequence[Path]:
    return config.prompts or [path for path in (config.strong, config.weak) if not _is_model(path)][:1]


def _prompts(config: Config, bad: list[str]) -> list[Prompt]:
    """Every prompt once, in order."""
    files = _prompt_files(config)
    if not files:
        raise DataError("prompts: both sides are models; name the files whose prompts they answer")
    found = dict.fromkeys(prompt for path in files for _, prompt, _ in _records(path, config.on_error, bad))
    return list(found)[: config.limit]


def _records(path: Path, on_error: OnError, bad: list[str]) -> Iterator[tuple[str, Prompt, str | None]]:
    """(place, prompt, answer or None) of the rows of a file in any shape that we read."""
    for place, row in read_rows(path, on_error, bad):
        kind: Any = Conversation
        if isinstance(row, dict) and ({"chosen", "preferred_output"} & row.keys()):
            kind = Preference
        elif isinstance(row, dict) and ({"verifier", "question"} & row.keys()):
            kind = Task
        try:
            record = to_record(row, kind)
            turns = record.prompt if isinstance(record, Preference) else record.messages
            if getattr(record, "tools", None) or any(message.tool_calls for message in turns):
                raise DataError("has tools, which the models here are not shown: leave such rows out")
        except DataError as error:
            if on_error == "fail":
                raise DataError(f"{place}: {error}\n  (on_error=skip counts such rows and goes on)") from None
            bad.append(f"{place}: {error}")
            continue
        if isinstance(record, Preference):
            yield place, record.prompt, None
        else:
            messages = tuple(Message(role=m.role, content=m.content) for m in record.messages)
            answered = messages[-1].role == "assistant"
            yield place, messages[:-1] if answered else messages, messages[-1].content if answered else None


def _written(path: Path, on_error: OnError, bad: list[str], more: Counter[str], name: str) -> Answers:
    """Answers of a file, by prompt; of several the first, the others counted in ``more``."""
    answers: dict[Prompt, tuple[str, str]] = {}
    for _, prompt, answer in _records(path, on_error, bad):
        if answer is not None:
            more[name] += prompt in answers
            answers.setdefault(prompt, (answer, "stop"))
    if not answers:
        raise DataError(f"{path}: no conversation here ends with an assistant's turn, so there is no answer to take")
    return answers


def _sampled(config: Config, folder: Path, prompts: Sequence[Prompt], path: Path, side: int) -> Answers:
    """Answers of a model, each written to ``path``: what an interrupted run has left there is not sampled again."""
    rows = _left(path)
    model = load(folder)
    engine = Engine(model, max_rows=config.max_rows, compile=None)
    ids = [encode_prompt(model.tokenizer, prompt) for prompt in prompts]
    context = model.decoder.config.max_position_embeddings
    with progress(path.stem, len(prompts), "prompts", len(rows)) as bar, path.open("a", encoding="utf-8") as file:
        while len(rows) < len(prompts):
            places = range(len(rows), min(len(rows) + _AT_ONCE, len(prompts)))
            fits = [i for i in places if len(ids[i]) < context]
            seeds = [(config.seed << 32) + 2 * i + side for i in fits]
            requests = [
                Request(ids[i], 1, config.sampling.model_copy(update={"seed": seed}))
                for i, seed in zip(fits, seeds, strict=True)
            ]
            done = {i: completion for i, (completion,) in zip(fits, engine.generate(requests), strict=True)}
            for i in places:
                row = {"prompt": i, "answer": "", "finish": "the prompt fills the context"}
                if i in done:
                    row |= {"answer": model.tokenizer.decode(done[i].content), "finish": done[i].reason}
                rows.append(row)
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            bar.advance(len(places))
    return {prompt: (row["answer"], row["finish"]) for prompt, row in zip(prompts, rows, strict=True)}


def _left(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a file that may end in the middle of one, which is cut off."""
    if not path.exists():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0]
    rows = [json.loads(line) for line in whole.splitlines()]
    write_jsonl(path, rows)
    return rows


def _pair(prompt: Prompt, sides: Mapping[str, Answers], counts: Counter[str]) -> Preference | None:
    """The pair of a prompt, or None with the reason counted."""
    answers = {}
    for name, known in sides.items():
        answers[name], finish = known.get(prompt, ("", "no answer"))
        if finish != "stop" or not answers[name].strip():
            reason = "empty" if finish == "stop" else "cut off" if finish == "length" else finish
            counts[f"{name}: {reason}"] += 1
            return None
    if answers["strong"] == answers["weak"]:
        counts["both answers are the same"] += 1
        return None
    return Preference(prompt=prompt, chosen=answers["strong"], rejected=answers["weak"])


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    """Rows at most: the prompts of files that are there."""
    files = [path for path in _prompt_files(config) if path.is_file()]
    rows = sum(sum(1 for _ in read_rows(path, "skip")) for path in files)
    rows = min(rows, config.limit or rows)
    return {"pairs_rows": rows, "pairs_mean_tokens": _TYPICAL_TOKENS}
