"""What a run ends with: the table, the questions answered side by side, the report, how to chat."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fledge.commands.stage import program
from fledge.commands.text import plain
from fledge.execute import Outcome
from fledge.recipe import Plan
from fledge.report.collect import Run, answers, evaluations, read_object, read_run
from fledge.table import STAGES, TRAINING

REPLY = 160  # characters of a reply that are shown here; the report has all


def print_summary(plan: Plan, outcome: Outcome) -> None:
    run = read_run(plan.folder)
    console = Console(highlight=False)
    _print_inputs(console, run)
    _print_answers(console, run)
    print_scores(evaluations(run), console)
    _print_gates(console, run)
    if outcome.report is not None:
        console.print(Text.assemble(("report: ", "bold"), str(outcome.report)), soft_wrap=True)
    models = run.of_stage(*(name for name in TRAINING if STAGES[name].speaks))
    if models:
        command = f"fledge chat {shlex.quote(str(models[-1].folder))}"
        console.print(
            Text.assemble(("chat:   ", "bold"), f"{program()}{command.removeprefix('fledge')}"), soft_wrap=True
        )


def print_scores(folders: Mapping[str, Path], console: Console | None = None) -> None:
    """The table of skills in percent, a row for each skill and language, a column for each evaluation."""
    if not folders:
        return
    from fledge.evaluate.compare import table

    found = table(folders)
    names = [row["name"] for row in found["rows"]]
    shown = Table(title="held-out skills, percent", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    shown.add_column("skill")
    shown.add_column("")
    for name in names:
        shown.add_column(_cell(name), justify="right")
    for column in found["columns"]:
        for number, language in enumerate(column["languages"]):
            cells = (row["cells"].get(column["skill"], {}).get(language) for row in found["rows"])
            texts = ["-" if cell is None else f"{100 * cell['mean']:.0f}" for cell in cells]
            skill = column["skill"].replace("_", " ") if not number else ""
            shown.add_row(_cell(skill), _cell(language), *texts)
    for number, (language, means) in enumerate(_all_skills(found).items()):
        texts = [f"{100 * mean:.0f}" for mean in means]
        shown.add_row("all" if not number else "", _cell(language), *texts, style="bold")
    (console or Console(highlight=False)).print(shown)
    for row in found["rows"]:
        for line in (*_apart(row["name"], row["cells"]), *_following(row["name"], row["cells"])):
            (console or Console(highlight=False)).print(_cell(line))
        count = sum(entry["n"] for entry in row["skipped"])
        if count:
            reasons = "; ".join(sorted({str(entry["reason"]) for entry in row["skipped"]}))
            line = f"{row['name']}: {count} items not scored: {reasons}"
            (console or Console(highlight=False)).print(_cell(line))


def _all_skills(found: Mapping[str, Any]) -> dict[str, list[float]]:
    """language -> of every evaluation the mean over the skills that all of them have scored in it."""
    result: dict[str, list[float]] = {}
    for language in sorted({name for column in found["columns"] for name in column["languages"]}, reverse=True):
        cells = [
            [row["cells"].get(column["skill"], {}).get(language) for row in found["rows"]]
            for column in found["columns"]
        ]
        common = [[cell["mean"] for cell in row] for row in cells if None not in row]
        if len(common) > 1:
            result[language] = [sum(means) / len(common) for means in zip(*common, strict=True)]
    return result


def _following(name: str, cells: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The four numbers of IFEval, where instructions were given."""
    from fledge.evaluate.following import LEVELS

    for skill, languages in sorted(cells.items()):
        for language, entry in sorted(languages.items()):
            if found := entry.get("following"):
                texts = []
                for level in LEVELS:
                    mean, low, high = (f"{100 * found[level][key]:.1f}" for key in ("mean", "low", "high"))
                    texts.append(f"{level.replace('_', ' ')} {mean} [{low}, {high}]")
                counts = f"{found['prompt_strict']['n']} prompts, {found['instruction_strict']['n']} instructions"
                yield f"{name}: {f'{skill} {language}'.strip()}: {', '.join(texts)} of {counts}"


def _apart(name: str, cells: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Scores of all items and of those that share nothing with the corpus, where one was named."""
    for skill, languages in sorted(cells.items()):
        for language, entry in sorted(languages.items()):
            seen = entry.get("seen")
            if seen:
                clean = seen.get("clean", {"mean": float("nan"), "n": 0})
                parts = f"{100 * clean['mean']:.0f} on {clean['n']} that share nothing with the corpus"
                yield f"{name}: {skill} {language}: {100 * entry['mean']:.0f} on {entry['n']} items, {parts}"


def _print_inputs(console: Console, run: Run) -> None:
    """How many records of each input of a corpus were kept: what became of the user's own pages."""
    for artefact in run.of_stage("corpus"):
        places = read_object(artefact.folder / "inputs.json") or {}
        for name, counts in artefact.metrics.get("inputs", {}).items():
            line = f"{counts['kept']:,} kept of {counts['read']:,} read from {plain(str(places.get(name, name)))}"
            console.print(Text.assemble((f"{artefact.name}: ", "bold"), line), soft_wrap=True)


def _print_gates(console: Console, run: Run) -> None:
    """One line for each gate, and one for each skill that fell."""
    from fledge.evaluate.gate import GATE_FILE, sentence

    for artefact in run.of_stage("gate"):
        rows = (read_object(artefact.folder / GATE_FILE) or {}).get("rows", [])
        counts = [f"{word} {sum(row['verdict'] == word for row in rows)}" for word in ("kept", "unclear", "fell")]
        console.print(Text.assemble((f"{artefact.name}: ", "bold"), ", ".join(counts)), soft_wrap=True)
        for row in rows:
            if row["verdict"] == "fell":
                console.print(_cell(f"  {sentence(row)}"), soft_wrap=True)


def _cell(text: str) -> Text:
    """Skills, languages and reasons come from files: in a string of their own rich would read markup."""
    return Text(plain(text))


def _print_answers(console: Console, run: Run) -> None:
    names, rows = answers(run)
    if not rows:
        return
    for row in rows:
        console.print(Text(plain(f"\n{row['prompt']}"), style="bold"))
        shown = Table(show_header=False, box=None, padding=(0, 1), show_edge=False)
        shown.add_column(style="dim", no_wrap=True)
        shown.add_column(overflow="fold")
        for name in names:
            reply = " ".join(plain(str(row["replies"].get(name, "-"))).split())
            shown.add_row(_cell(name), Text(reply if len(reply) <= REPLY else reply[:REPLY] + "…"))
        console.print(shown)
    console.print()
