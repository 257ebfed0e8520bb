"""Fill the tables of docs/performance.md from results/: what stands between ``<!-- NAME -->`` and ``<!-- end -->``.

    python benchmarks/write_docs.py

The text around the tables is written by hand. Names: `machine`, `rows`, `growth`, `skipped`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from pair import HERE, RESULTS, number, place, read_rows

DOCS = HERE.parent / "docs" / "performance.md"
FILES = ("pretrain", "pretrain_fp32", "pretrain_wide", "sft", "sft_wide", "lora", "reward_model", "dpo", "grpo",
         "online", "sample", "greedy", "tokenise", "cold_start")  # fmt: skip
# The goals of the table, as (as it comes, tuned) by the start of a job's name and its peer; 0 where there is none.
GOALS: tuple[tuple[str, str, float, float], ...] = (
    ("pretrain tiny8k, exact fp32", "transformers", 2.0, 1.1),
    ("pretrain tiny152k", "transformers", 2.0, 1.1),
    ("pretrain", "transformers", 1.8, 1.3),
    ("pretrain", "litgpt", 1.6, 1.3),
    ("SFT, uneven", "trl", 4.0, 2.2),
    ("SFT, vocabulary", "trl", 8.0, 4.0),
    ("reward model 512+2x128", "trl", 2.0, 1.6),
    ("DPO 512+2x128, reference cached", "trl", 3.7, 2.8),
    ("DPO 512+2x128, reference live", "trl", 3.5, 2.6),
    ("GRPO step 8x8, 128", "trl", 4.0, 3.0),
    ("GRPO step 8x8, 512", "trl", 6.0, 5.0),
    ("RLOO step 8x8, 128", "trl", 4.0, 3.0),  # as GRPO
    ("sampling 64 sequences of one prompt", "nanochat", 3.0, 0.0),
    ("sampling", "transformers", 4.5, 0.0),
    ("sampling", "llama.cpp", 1.0, 0.0),
    ("greedy, one sequence, compiled", "transformers", 4.0, 0.0),
    ("greedy", "transformers", 1.5, 0.0),
    ("tokenis", "transformers", 2.5, 0.0),
    ("cold start", "trl", 3.5, 0.0),
)
# Most memory that ours may take, as a share of the peer's: (as it comes, tuned).
MEMORY: tuple[tuple[str, str, float, float], ...] = (
    ("pretrain tiny152k", "transformers", 0.40, 1 / 3),
    ("SFT", "trl", 0.5, 0.0),
    ("DPO 512+2x128, reference live", "trl", 1 / 3, 0.0),
    ("GRPO step 8x8, 512", "trl", 1 / 3, 0.0),
)


def main() -> int:
    rows = [row for name in FILES for row in read_rows(RESULTS / f"{name}.jsonl")]
    path = RESULTS / "growth.json"
    growth = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    parts = {"machine": machines(rows), "rows": tables(rows), "skipped": skipped(rows), "growth": grown(growth)}
    text = DOCS.read_text(encoding="utf-8")
    try:
        for name, part in parts.items():
            text = fill(text, name, part)
    except LookupError as error:
        print(f"{DOCS}: {error.args[0]}", file=sys.stderr)
        return 1
    DOCS.write_text(text, encoding="utf-8")
    return 0


def fill(text: str, name: str, part: str) -> str:
    """Put ``part`` between ``<!-- name -->`` and its end. Raises LookupError where the text has no such place."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(text):
        raise LookupError(f"has no place for {name!r}")
    return pattern.sub(lambda found: f"{found[1]}{part}\n{found[2]}", text)


def goal(table: Sequence[tuple[str, str, float, float]], row: dict[str, Any]) -> float:
    for job, peer, plain, tuned in table:
        if row["job"].startswith(job) and row["peer"] == peer:
            return tuned if row["tuned"] else plain
    return 0.0


def shown_machine(row: dict[str, Any]) -> str:
    facts = row["config"]["machine"]
    bf16 = facts["bf16"] or "no bf16 instructions"
    return f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {bf16}"


def machines(rows: Sequence[dict[str, Any]]) -> str:
    versions: dict[str, str] = {}
    for row in rows:
        for side in ("ours", "theirs"):
            versions |= row["config"].get(side, {}).get("versions", {})
    lines = [f"- {name}" for name in dict.fromkeys(shown_machine(row) for row in rows)]
    return "\n".join([*lines, "", "Versions: " + ", ".join(f"{k} {v}" for k, v in sorted(versions.items())) + "."])


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """One a machine. The goal stands beside the ratio; what falls short is bold."""
    parts = []
    for machine in dict.fromkeys(place(row) for row in rows):
        here = [row for row in rows if place(row) == machine and row["ratio"] is not None]
        if not here:
            continue
        columns = ("job", "peer", "column", "ours", "theirs", "unit", "ratio", "min-max", "goal", "MiB, ours / theirs",
                   "share, goal")  # fmt: skip
        lines = [f"### {shown_machine(here[0])}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        parts += [*lines, *(line(row) for row in here), ""]
    return "\n".join(parts).rstrip()


def line(row: dict[str, Any]) -> str:
    wanted, most = goal(GOALS, row), goal(MEMORY, row)
    ratio, share = row["ratio"], row["ours_mib"] / row["theirs_mib"]
    found = row["config"]["ratios"]
    cells = [
        row["job"], row["peer"], "tuned" if row["tuned"] else "as it comes", number(row["ours"]), number(row["theirs"]),
        row["unit"], emphasised(f"{ratio:.2f}x", wanted > 0 and ratio < wanted), f"{min(found):.2f}-{max(found):.2f}",
        f"{wanted:.1f}x" if wanted else "", f"{row['ours_mib']:,} / {row['theirs_mib']:,}",
        emphasised(f"{share:.2f}", most > 0 and share > most) + (f", {most:.2f}" if most else ""),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def emphasised(text: str, short: bool) -> str:
    return f"**{text}**" if short else text


def skipped(rows: Sequence[dict[str, Any]]) -> str:
    found = [f"- {r['job']}, {r['peer']}: {r['config'].get('skipped', '')}" for r in rows if r["ratio"] is None]
    return "\n".join(found) or "Nothing was skipped."


def grown(growth: dict[str, Any]) -> str:
    """A table of each series, all its keys as columns; long values are left to the file."""
    parts: list[str] = []
    for name, points in growth.get("series", {}).items():
        keys = [key for key in dict.fromkeys(k for p in points for k in p) if key not in ("values", "skipped")]
        plot = DOCS.parent / f"growth-{name.replace('_', '-')}.svg"
        parts += [f"### {TITLES.get(name, name)}", ""]
        parts += [f"![{name}]({plot.name})", ""] if plot.exists() else []
        parts += ["| " + " | ".join(key.replace("_", " ") for key in keys) + " |", "|---" * len(keys) + "|"]
        for point in points:
            cells = [cell(point[key]) if key in point else "" for key in keys]
            parts.append("| " + " | ".join(cells) + " |")
            if "skipped" in point:
                parts.append(f"\nSkipped: {point['skipped']}\n")
        parts.append("")
    return "\n".join(parts).rstrip()


TITLES = {
    "step_time": "Step time, 1k to 64k tokens a batch",
    "vocabulary": "Memory against the vocabulary",
    "data_set": "Memory against the data set",
    "engine": "Engine, 1 to 256 sequences",
    "loader": "What a step waits for its batch",
    "recompute": "Memory at 32k tokens in one micro-batch",
    "threads": "The second thread",
}


def cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    sys.exit(main())
