"""Stage `gate`: skills that a stage must not cost (the alignment tax).

    dpo-gate: {stage: gate, before: "@sft-scores", after: "@dpo-scores", must_keep: {arithmetic: 0.02, "*": 0.05}}

Two evaluations of the same items are compared, item by item. A skill

- has *fallen* where it lost more than is tolerated and the loss is no accident: McNemar's exact test on the items that
  changed (p <= .05), or, where scores are not all 0 or 1, a paired bootstrap interval below zero;
- is *kept* where the whole interval of the difference stays above the tolerated loss;
- is *unclear* otherwise: the items are too few to tell. It is shown, and lets the chain go on.

`gate.json` holds the table, and the report shows it. Where a skill has fallen and `on_fall` is stop, the stage ends
with an error, now and whenever the recipe is run again; `on_fall=warn` goes on, without making anything anew.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from fledge.core.artefact import produce, write_json
from fledge.core.bench import Bench
from fledge.core.config import Config as BaseConfig
from fledge.core.errors import DataError, Halt
from fledge.evaluate.compare import paired
from fledge.evaluate.metrics import estimate as interval
from fledge.evaluate.metrics import mcnemar, paired_difference, wilson

GATE_FILE = "gate.json"
REST = "*"
_SURE = 0.05

Pairs = Sequence[tuple[float, float]]


class Config(BaseConfig):
    """Which evaluations, which skills, and how much of each may be lost."""

    before: Path = Field(description="folder of the evaluation before the stage")
    after: Path = Field(description="folder of the evaluation after it, on the same items")
    must_keep: dict[str, float] = Field(
        min_length=1,
        description="tolerated loss by skill, 0.02 is two points of a hundred; SKILL/LANGUAGE for one language, '*' "
        "for every skill that is not named",
    )
    # No part of what the artefact is: after a stop the chain can go on without measuring anew.
    on_fall: Literal["stop", "warn"] = Field("stop", exclude=True, description="where a skill has fallen")
    bootstrap: int = Field(2000, ge=100, description="resamples of the intervals")
    seed: int = 0

    @field_validator("must_keep")
    @classmethod
    def _shares(cls, must_keep: dict[str, float]) -> dict[str, float]:
        for skill, tolerance in must_keep.items():
            if not 0 <= tolerance < 1:
                raise ValueError(f"{skill}: a tolerated loss is a share, from 0 to below 1 (two points are 0.02)")
        return must_keep


def run(config: Config, out: Path, redo: bool = False) -> None:
    """Raises Halt where a skill has fallen and `on_fall` is stop; DataError where there is nothing to compare."""
    inputs = {"before": config.before, "after": config.after}
    with produce(out, kind="gate", stage="gate", config=config, inputs=inputs, seed=config.seed, redo=redo) as work:
        if not work.done:
            result = compare(config)
            write_json(work.folder / GATE_FILE, result)
            counts = {
                word: sum(row["verdict"] == word for row in result["rows"]) for word in ("kept", "unclear", "fell")
            }
            work.metrics.update(
                {**counts, "fallen": [row["skill"] for row in result["rows"] if row["verdict"] == "fell"]}
            )
    found = json.loads((out / GATE_FILE).read_text(encoding="utf-8"))
    fallen = [row for row in found["rows"] if row["verdict"] == "fell"]
    if not fallen:
        return
    lines = "\n".join(f"  {sentence(row)}" for row in fallen)
    if config.on_fall == "stop":
        raise Halt(
            f"{out.name}: the stage before this gate cost more than is tolerated:\n{lines}\n"
            f"All that was made is kept, and {out / GATE_FILE} has the whole table. To go on all the same, start again "
            f"with on_fall=warn (in a recipe: {out.name}.on_fall=warn)."
        )
    print(f"{out.name}: more was lost than is tolerated, and on_fall is warn:\n{lines}", file=sys.stderr, flush=True)


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    return {"seconds": 1.0}


def sentence(row: Mapping[str, Any]) -> str:
    """One row of the table, for people."""
    b, a, d = row["before"], row["after"], row["difference"]
    return (
        f"{row['skill']}: {100 * b['mean']:.1f}% before, {100 * a['mean']:.1f}% after, {100 * d['mean']:+.1f} points "
        f"({100 * d['low']:+.1f} to {100 * d['high']:+.1f}) on {d['n']} items; tolerated {-100 * row['tolerance']:.1f}"
    )


def compare(config: Config) -> dict[str, Any]:
    """`{"rows": [...], "unpaired": n}`; a row: skill, tolerance, before, after and difference as intervals, lost and
    gained items, p of McNemar's test where scores are 0 or 1, verdict."""
    pairs, alone = paired(config.before, config.after)
    if not pairs:
        raise DataError(f"{config.before} and {config.after} have no item in common: there is nothing to compare")
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for (skill, language), values in pairs.items():
        for name in (skill, f"{skill}/{language}"):
            groups[name] += values
    skills = {skill for skill, _ in pairs}
    named = [name for name in config.must_keep if name != REST]
    for name in named:
        if name not in groups:
            near = difflib.get_close_matches(name, groups, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(sorted(skills)) or 'none'}"
            raise DataError(f"must_keep: no items of {name!r} are in both {config.before} and {config.after}{hint}")
    rest = _rest(pairs, named) if REST in config.must_keep else []
    rows = [row_of(name, groups[name], config.must_keep.get(name, config.must_keep.get(REST, 0.0)), config.bootstrap,
                   config.seed) for name in [*named, *rest]]  # fmt: skip
    return {"before": config.before.name, "after": config.after.name, "rows": rows, "unpaired": sum(alone)}


def _rest(known: Iterable[tuple[str, str]], named: Sequence[str]) -> list[str]:
    """Skills that are not named and, where one is named in some languages, that skill in the others."""
    rest = []
    for skill in sorted({skill for skill, _ in known} - set(named)):
        every = [f"{skill}/{language}" for of, language in sorted(known) if of == skill]
        others = [name for name in every if name not in named]
        rest += [skill] if others == every else others
    return rest


def row_of(skill: str, pairs: Pairs, tolerance: float, resamples: int, seed: int) -> dict[str, Any]:
    before, after = [b for b, _ in pairs], [a for _, a in pairs]
    difference = paired_difference(before, after, resamples, seed)
    lost, gained = sum(a < b for b, a in pairs), sum(a > b for b, a in pairs)
    binary = all(value in (0, 1) for pair in pairs for value in pair)
    p = mcnemar(lost, gained) if binary else None
    sure = p <= _SURE if p is not None else difference.high < 0
    # Half a millionth: a loss of exactly what is tolerated is no more than that, whatever its float is.
    if difference.mean < -tolerance - 5e-7 and sure:
        verdict = "fell"
    else:
        verdict = "kept" if difference.low >= -tolerance - 5e-7 else "unclear"
    return {
        "skill": skill, "tolerance": tolerance, "before": _share(before, binary, resamples, seed),
        "after": _share(after, binary, resamples, seed), "difference": difference.plain(), "lost": lost,
        "gained": gained, "p": p, "verdict": verdict,
    }  # fmt: skip


def _share(values: Sequence[float], binary: bool, resamples: int, seed: int) -> dict[str, Any]:
    if not binary:
        return interval(values, resamples, seed).plain()
    low, high = wilson(sum(map(int, values)), len(values))
    return {"mean": sum(values) / len(values), "low": low, "high": high, "n": len(values)}
