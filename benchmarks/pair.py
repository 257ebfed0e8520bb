"""The harness of the side-by-side benchmarks: every side a process of its own, in turn A B A B.

A side is a script of `sides/`, run by the interpreter of what it measures; its last line of output is JSON with
``rate``, ``first_step_seconds`` and ``versions``. A row's script (`pretrain.py` and so on) describes its sides as
`Row`s and hands them to `main`, which runs them, prints a table, and writes ``results/NAME.jsonl``, one object a
comparison: ``{job, peer, tuned, ours, theirs, unit, ratio, ours_mib, theirs_mib, config}``. Ratios are made within a
round, so that a machine that drifts hurts both sides alike; the one quoted is their median, above 1 where ours is
ahead. A run replaces the rows that it makes anew, of its own machine; rows of other machines stay.

``BENCH_LOCK=/some/file``: that file is locked around each round, for machines that several people share.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fledge.core.artefact import hardware
from fledge.core.machine import bf16_instructions

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
SIDES = HERE / "sides"
WORK = Path(os.environ.get("BENCH_WORK") or HERE / ".work")  # as sides/work.py has it
# What any user may set for glibc: freed memory is kept instead of being returned and faulted in anew every step.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "67108864"}
KEYS = ("job", "peer", "tuned", "ours", "theirs", "unit", "ratio", "ours_mib", "theirs_mib", "config")


@dataclass(frozen=True)
class Side:
    """``script`` of `sides/` with its arguments. ``environment`` names whose interpreter runs it ("" is ours)."""

    script: str
    arguments: tuple[str, ...] = ()
    environment: str = ""
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        kept = self.variables == KEEP_MEMORY
        words = ["MALLOC_*"] if kept else [f"{k}={v}" for k, v in self.variables.items()]
        return " ".join([*words, self.script, *self.arguments])


@dataclass(frozen=True)
class Peer:
    """One column of a row. Of several ``candidates`` (settings a user could choose among) the best is the peer."""

    name: str
    tuned: bool
    candidates: tuple[Side, ...]


@dataclass(frozen=True)
class Row:
    """``lower``: the unit is one of time, so less is better. ``sizes``: model folders that must be there."""

    job: str
    unit: str
    ours: Side
    peers: tuple[Peer, ...]
    sizes: tuple[str, ...] = ()
    lower: bool = False


class Missing(Exception):
    """A side that cannot be run here, and why."""


@dataclass
class Run:
    """What one process said, and its peak memory."""

    facts: dict[str, Any]
    mib: float

    @property
    def rate(self) -> float:
        return float(self.facts["rate"])


def interpreter(environment: str) -> Path:
    """Whose Python runs a side: ours, what PEER_NAME names, or the environment that `peers.sh` made.

    Raises `Missing` with what to do.
    """
    if not environment:
        return Path(sys.executable)
    if environment == "nanochat" and not os.environ.get("NANOCHAT"):
        raise Missing("nanochat is not on the package index: set NANOCHAT=/path/to/a/checkout")
    given = os.environ.get(f"PEER_{environment.upper()}")
    path = Path(given) if given else HERE / ".peers" / environment / "bin" / "python"
    if not path.exists():
        how = f"PEER_{environment.upper()} names it" if given else f"make it with: benchmarks/peers.sh {environment}"
        raise Missing(f"{path}: there is no such interpreter ({how})")
    return path


def run_side(side: Side, timeout: float = 600.0) -> Run:
    """Raises `Missing` where the side cannot be run, ends with an error, or says nothing."""
    python = interpreter(side.environment)
    variables = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "PYTHONPATH"}
    if not side.environment:
        variables["PYTHONPATH"] = str(HERE.parent / "src")  # this checkout, whatever is installed
    variables |= {"TOKENIZERS_PARALLELISM": "true", "BENCH_SIDE": side.environment or "ours", **side.variables}
    command = [str(python), str(SIDES / side.script), *side.arguments]
    process = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    streams: dict[str, bytes] = {}

    def drain(name: str) -> None:
        stream = getattr(process, name)
        streams[name] = stream.read()

    readers = [threading.Thread(target=drain, args=(name,)) for name in ("stdout", "stderr")]
    for reader in readers:
        reader.start()
    alarm = threading.Timer(timeout, process.kill)
    alarm.start()
    # wait4 and not Popen.wait: it gives the peak memory of this child and its own children. Never less than what this
    # process had when it started the child, so nothing heavy (torch) may be imported here.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    alarm.cancel()
    for reader in readers:
        reader.join()
    lines = [line for line in streams["stdout"].decode(errors="replace").splitlines() if line.startswith('{"rate"')]
    if process.returncode or not lines:
        said = streams["stderr"].decode(errors="replace").strip().splitlines()
        reason = said[-1] if said else "it said nothing"
        late = f" (stopped after {timeout:.0f} s)" if process.returncode == -9 else ""
        raise Missing(f"{side.shown}: exit {process.returncode}{late}: {reason[:300]}")
    return Run(json.loads(lines[-1]), usage.ru_maxrss / 1024)


# ----------------------------------------------------------------------------------------- in turn


@dataclass
class Measured:
    """The runs of one side, one a round; ``reason`` where it could not be run."""

    side: Side
    runs: list[Run] = field(default_factory=list)
    reason: str = ""
    dropped: bool = False  # a candidate that the first round has shown to be the worse one

    @property
    def rate(self) -> float:
        return statistics.median(run.rate for run in self.runs)

    @property
    def mib(self) -> float:
        return statistics.median(run.mib for run in self.runs)


def measure(
    row: Row, rounds: int, timeout: float, say: Callable[[str], Any], keep: Callable[[list[dict[str, Any]]], Any]
) -> list[dict[str, Any]]:
    """Run a row's sides in turn and return its comparisons, each with the keys of `KEYS`. ``keep`` is given what is
    known after each round: a run that is stopped has lost a round."""
    found: list[dict[str, Any]] = []
    prepare(row.sizes)
    ours = Measured(row.ours)
    theirs = [[Measured(side) for side in peer.candidates] for peer in row.peers]
    for number in range(rounds):
        with lock():
            for measured in (ours, *(m for group in theirs for m in group)):
                if measured.reason or measured.dropped:
                    continue
                try:
                    measured.runs.append(run_side(measured.side, timeout))
                except Missing as problem:
                    measured.reason = str(problem)
                    say(f"  skipped: {problem}")
                    continue
                last = measured.runs[-1]
                say(f"  {row.job}, round {number + 1}: {measured.side.shown}: {last.rate:.5g} {row.unit}, "
                    f"{last.mib:.0f} MiB, first step after {last.facts['first_step_seconds']} s")  # fmt: skip
        for group in theirs:
            drop_slower(group, row.lower)
        found = [comparison(row, peer, ours, group) for peer, group in zip(row.peers, theirs, strict=True)]
        keep(found)
    return found


def drop_slower(group: Sequence[Measured], lower: bool, margin: float = 1.1) -> None:
    """Candidates behind the best of their group by more than the noise of a round take no further part."""
    done = [measured for measured in group if measured.runs and not measured.reason]
    if done:
        best = fastest(done, lower).rate
        for measured in done:
            behind = measured.rate / best if lower else best / measured.rate
            measured.dropped |= behind > margin


def fastest(done: Sequence[Measured], lower: bool) -> Measured:
    return min(done, key=lambda m: m.rate) if lower else max(done, key=lambda m: m.rate)


def comparison(row: Row, peer: Peer, ours: Measured, group: Sequence[Measured]) -> dict[str, Any]:
    """One object of the results. Where a side is missing, its figures and the ratio are None and config says why."""
    config: dict[str, Any] = {"machine": machine(), "ours": described(ours)}
    done = [measured for measured in group if measured.runs and not measured.reason and not measured.dropped]
    record: dict[str, Any] = {
        "job": row.job, "peer": peer.name, "tuned": peer.tuned, "ours": None, "theirs": None, "unit": row.unit,
        "ratio": None, "ours_mib": None, "theirs_mib": None, "config": config,
    }  # fmt: skip
    if ours.runs and not ours.reason:
        record |= {"ours": ours.rate, "ours_mib": round(ours.mib)}
    else:
        config["skipped"] = ours.reason
    if not done:
        config["skipped"] = "; ".join(measured.reason for measured in group)
        return record
    best = fastest(done, row.lower)
    record |= {"theirs": best.rate, "theirs_mib": round(best.mib)}
    config["theirs"] = described(best)
    if len(group) > 1:
        config["candidates"] = {m.side.shown: m.reason or m.rate for m in group}
    if record["ours"] is not None:
        found = ratios([run.rate for run in ours.runs], [run.rate for run in best.runs], row.lower)
        record["ratio"] = statistics.median(found)
        config |= {"rounds": len(found), "ratios": found}
    return record


def ratios(ours: Sequence[float], theirs: Sequence[float], lower: bool) -> list[float]:
    """One a round, above 1 where ours is ahead."""
    return [b / a if lower else a / b for a, b in zip(ours, theirs, strict=True)]


def described(measured: Measured) -> dict[str, Any]:
    if not measured.runs:
        return {"side": measured.side.shown}
    facts = {k: v for k, v in measured.runs[-1].facts.items() if k != "rate"}
    return {
        "side": measured.side.shown, "values": [run.rate for run in measured.runs],
        "mib": [round(run.mib) for run in measured.runs],
        "first_step_seconds": [run.facts["first_step_seconds"] for run in measured.runs],
        **{k: v for k, v in facts.items() if k not in ("first_step_seconds", "step_seconds", "tokens")},
    }  # fmt: skip


@contextlib.contextmanager
def lock() -> Iterator[None]:
    """One round at a time on a machine that several people share (BENCH_LOCK)."""
    path = os.environ.get("BENCH_LOCK")
    if not path:
        yield
        return
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def prepare(sizes: Sequence[str]) -> None:
    """Model folders that both sides read."""
    wanted = [size for size in sizes if not (WORK / "models" / size / "model.safetensors").exists()]
    if wanted:
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "src")}
        subprocess.run([sys.executable, str(SIDES / "make_model.py"), *wanted], env=environment, check=True)


def machine() -> dict[str, Any]:
    facts = hardware()
    return {**facts, "bf16": bf16_instructions()}


# ----------------------------------------------------------------------------------- results, table


def write_rows(path: Path, rows: Sequence[dict[str, Any]], whole: bool = False) -> None:
    """Put rows into a file of results in place of the stale ones: those of the same job, peer and column, or with
    ``whole`` all, of the same machine."""
    kept = []
    fresh = {identity(row) for row in rows}
    machines = {place(row) for row in rows}
    for row in read_rows(path):
        stale = place(row) in machines if whole else identity(row) in fresh
        if not stale:
            kept.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps({key: row[key] for key in KEYS}, ensure_ascii=False) + "\n" for row in [*kept, *rows])
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def place(row: dict[str, Any]) -> tuple[str, int]:
    """The machine of a row."""
    facts = row["config"]["machine"]
    return str(facts["cpu"]), int(facts["cores"])


def identity(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["job"], row["peer"], row["tuned"], *place(row)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Ours, peer, ratio, memory; minimum, median and maximum of the ratios; versions and machine below."""
    lines = [("job", "peer", "column", "unit", "ours", "theirs", "ratio", "min-max", "ours MiB", "theirs MiB")]
    for row in rows:
        column = "tuned" if row["tuned"] else "as it comes"
        if row["ratio"] is None:
            lines.append((row["job"], row["peer"], column, row["unit"], number(row["ours"]), number(row["theirs"]),
                          "-", "-", number(row["ours_mib"]), "skipped"))  # fmt: skip
            continue
        found = row["config"]["ratios"]
        lines.append((row["job"], row["peer"], column, row["unit"], number(row["ours"]), number(row["theirs"]),
                      f"{row['ratio']:.2f}x", f"{min(found):.2f}-{max(found):.2f}", number(row["ours_mib"]),
                      number(row["theirs_mib"])))  # fmt: skip
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    text += [f"skipped: {r['job']}, {r['peer']}: {r['config']['skipped']}" for r in rows if "skipped" in r["config"]]
    for row in rows[:1]:
        facts = row["config"]["machine"]
        text.append(f"machine: {facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB, "
                    f"{facts['bf16'] or 'no bf16 instructions'}")  # fmt: skip
    for row in rows:
        found = {**row["config"].get("ours", {}).get("versions", {})}
        other = row["config"].get("theirs", {}).get("versions", {})
        if other:
            text.append(f"versions: {row['peer']}: {joined(other)}; ours: {joined(found)}")
    return "\n".join(dict.fromkeys(text))


def joined(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# ------------------------------------------------------------------------------------------- a row's door


def parser(description: str | None) -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    result.add_argument("--rounds", type=int, default=3, help="how often the sides take turns")
    result.add_argument("--only", default="", help="jobs whose name holds this")
    result.add_argument("--peer", default="", help="peers whose name holds this")
    result.add_argument("--quick", action="store_true", help="one short round; results go to .work/quick")
    result.add_argument("--timeout", type=float, default=600.0, help="seconds that one process may take")
    return result


def main(name: str, rows: Sequence[Row], arguments: argparse.Namespace) -> int:
    """Run the rows asked for; the results go to ``results/NAME.jsonl``. Returns the exit code: 1 where ours failed."""
    started = time.monotonic()
    rounds = 1 if arguments.quick else arguments.rounds
    folder = WORK / "quick" if arguments.quick else RESULTS
    done: list[dict[str, Any]] = []
    for row in rows:
        if arguments.only not in row.job:
            continue
        peers = tuple(peer for peer in row.peers if arguments.peer in peer.name)
        if not peers:
            continue
        done += measure(
            replace(row, peers=peers), rounds, arguments.timeout, lambda line: print(line, flush=True),
            lambda found: write_rows(folder / f"{name}.jsonl", found),
        )  # fmt: skip
    if not done:
        print(f"{name}: no row has {arguments.only!r} and a peer with {arguments.peer!r} in its name", file=sys.stderr)
        return 2
    if not arguments.only and not arguments.peer:
        write_rows(folder / f"{name}.jsonl", done, whole=True)
    print(table(done), flush=True)
    print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    return 1 if any(row["ours"] is None for row in done) else 0
