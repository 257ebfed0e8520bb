"""Attacks on the sandbox: each is contained and scored as a failure, under every kind of protection that this machine
has, and the job after it is judged as if nothing had been. A third runs in `make test`.

The attacks are in `reward_attacks.py` (on the machine) and `reward_forgeries.py` (on the verdict).
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from reward_attacks import MACHINE, PRELUDE, TESTS, Attack
from reward_forgeries import VERDICT
from reward_kinds import KINDS, MISSING, every_kind

from fledge.reward import sandbox
from fledge.reward.sandbox import Job, Limits, run_many, run_python

ATTACKS = MACHINE | VERDICT
PAGE = Path(__file__).parents[2] / "docs" / "alignment" / "rewards.md"


pytestmark = pytest.mark.skipif(not KINDS, reason="this machine cannot confine code: no namespaces, no Landlock")


class World:
    """What is there to be harmed: files, a process, sockets that must hear nothing."""

    def __init__(self, folder: Path) -> None:
        self.home, self.others = folder / "home", folder / "fledge-sandbox-others"
        self.secret = self.home / "model.safetensors"
        (self.others / "room7").mkdir(parents=True)
        self.home.mkdir()
        self.secret.write_bytes(b"hunter2" * 100)
        (self.others / "reward.jsonl").write_text("0\n")
        self.victim = subprocess.Popen(["sleep", "100000"])
        self.unix, self.abstract = str(folder / "socket"), f"fledge-attack-{os.getpid()}"
        families = (socket.AF_INET, socket.AF_INET, socket.AF_UNIX, socket.AF_UNIX)
        kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_STREAM)
        self.sockets = [socket.socket(family, kind) for family, kind in zip(families, kinds, strict=True)]
        for one, address in zip(
            self.sockets, (("127.0.0.1", 0), ("127.0.0.1", 0), self.unix, f"\0{self.abstract}"), strict=True
        ):
            one.bind(address)
            one.setblocking(False)
            if one.type == socket.SOCK_STREAM:
                one.listen()
        self.before = self.look()

    def look(self) -> list[object]:
        files = sorted(path for top in (self.home, self.others) for path in top.rglob("*"))
        return [
            (path, path.lstat().st_mtime_ns, path.lstat().st_mode, path.is_file() and path.read_bytes())
            for path in files
        ]

    def heard(self) -> list[object]:
        found: list[object] = []
        for one in self.sockets:
            try:
                found.append(one.accept() if one.type == socket.SOCK_STREAM else one.recv(100))
            except BlockingIOError:
                continue
        return found

    def prelude(self) -> str:
        values = {
            "SECRET": str(self.secret), "HOME": str(self.home), "OTHERS": str(self.others), "VICTIM": self.victim.pid,
            "PACKAGE": sandbox.__file__, "UNIX": self.unix, "ABSTRACT": self.abstract,
            "TCP": self.sockets[0].getsockname()[1], "UDP": self.sockets[1].getsockname()[1],
        }  # fmt: skip
        return PRELUDE + "".join(f"{name} = {value!r}\n" for name, value in values.items())

    def close(self) -> None:
        self.victim.kill()
        self.victim.wait()
        for one in self.sockets:
            one.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("attacks"))
    yield made
    made.close()


def _cases() -> list[object]:
    """The quick third runs under the protection that is used here; the long suite runs all under all. A protection that
    does not start here is one test that skips and says why."""
    cases = [
        pytest.param(
            kind, attack, id=f"{kind}: {name}", marks=[] if attack.quick and kind == KINDS[0] else [pytest.mark.long]
        )
        for kind in KINDS
        for name, attack in ATTACKS.items()
    ]
    missing = [
        pytest.param(kind, None, id=f"{kind}: all", marks=pytest.mark.skip(reason=f"{kind}: {why}"))
        for kind, why in MISSING.items()
    ]
    return [*cases, *missing]


@pytest.mark.parametrize(("kind", "attack"), _cases())
def test_an_attack_is_contained_and_fails(
    kind: str, attack: Attack, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    if attack.numbers and os.uname().machine != "x86_64":
        pytest.skip("numbers of system calls are those of x86_64")
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    limits = Limits(**({"wall": 30.0} | attack.limits))  # type: ignore[arg-type]
    wrong, right = (Job(f"def f(x): return {text}", "f", TESTS, Limits(wall=30)) for text in ("0", "40 + x"))
    before, found, after = run_many(
        [wrong, Job(attack.after(world.prelude()), "f", TESTS, limits), right], workers=1, kind=kind
    )
    assert (before.passed, after.passed_all) == (0, True)
    assert found.status in attack.ends, found
    assert found.passed == 0, found
    assert not found.passed_all
    assert "BREACH" not in found.output
    assert "hunter2" not in found.output
    assert len(found.output) <= limits.output
    assert world.look() == world.before
    assert world.victim.poll() is None
    assert world.heard() == []


@pytest.mark.parametrize("kind", every_kind())
def test_runs_at_once_do_not_see_each_other(kind: str) -> None:
    """Each leaves marks in its room, its memory and wherever it can, waits for the others, and looks around."""
    code = """
import os, sys, time
tops = ('/', '/tmp', os.path.dirname(os.getcwd()), '/dev', '/dev/shm')
for top in ('.', *tops):
    try: open(top + '/mark-NUMBER', 'w').write('secret NUMBER')
    except OSError: pass
time.sleep(0.4)
seen = os.listdir('.')
for top in (*tops, '/proc'):
    try: names = os.listdir(top)
    except OSError: continue
    seen += [name for name in names if name.startswith('mark') or name.isdigit()]
near = {*range(2, 200), *range(os.getpid() - 200, os.getpid() + 200)} - {os.getpid()}
def f(x): return sorted(set(seen)), sum(heard(pid) for pid in near if pid > 1)
def heard(pid):
    try: os.kill(pid, 0)
    except OSError: return False
    return True
"""
    tests = "assert f(1) == (['mark-NUMBER'], 0)"
    jobs = [Job(code.replace("NUMBER", n), "f", tests.replace("NUMBER", n), Limits(wall=30)) for n in ("one", "two")]
    found: dict[int, list[sandbox.Result]] = {}

    def call(place: int) -> None:
        found[place] = run_many([jobs[place]], workers=1, kind=kind)

    # two callers with a warden each, and one caller with two wardens
    callers = [threading.Thread(target=call, args=(place,)) for place in (0, 1)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    results = [*found[0], *found[1], *run_many(jobs, workers=2, kind=kind)]
    assert all(result.passed_all for result in results), results


def test_how_many_there_are() -> None:
    quick = sum(attack.quick for attack in ATTACKS.values())
    assert len(MACHINE) >= 30
    assert len(ATTACKS) / 4 < quick < len(ATTACKS) / 2


def test_the_page_names_every_attack() -> None:
    rows = re.findall(r"^\| ([^|]+?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    missing = [name for name in ATTACKS if name not in rows]
    assert not missing, f"{PAGE.name} does not name: {missing}"


# ---- the means of the tests ------------------------------------------------------------------------------------------

HELPED = """
import math
from operator import eq
def near(a, b): return abs(a - b) < 1e-6
assert near(f(1), 41) and near(f(2), 42)
assert set(map(f, [1, 2])) == set([41, 42]) and isinstance(f(1), int)
assert math.isclose(f(1), 41) and eq(f(2), 42)
assert all(map(lambda x: f(x) == 40 + x, [1, 2]))
for value in filter(None, map(f, [1, 2])):
    if value in (41, 42):
        found = True
    else:
        break
assert found
"""
SHADOWS = {
    "a distance of its own": "def abs(x): return 0",
    "sets that are equal": "def set(x): return 1",
    "everything is an instance": "def isinstance(x, kind): return True\ndef all(x): return True",
    "everything is tested": "def filter(*x): return [41]",
    "names that the tests import": "def eq(a, b): return True\ndef isclose(a, b): return True\nmath = eq",
    "names that the tests define": "def near(a, b): return True",
    "a name that the tests bind in a branch": "def found(): pass",
    "names of the module": (
        "import json, os\n"
        'names = ["f", "__builtins__", "__import__", "__build_class__", "__name__", "abs", "set", "found"]\n'
        'os.write(4, json.dumps({"functions": names}).encode() + b"\\n")'
    ),
    "the end of an iteration": "def g(x): raise StopIteration",
}


@pytest.mark.parametrize("name", SHADOWS)
def test_forging_the_means_of_the_tests(name: str) -> None:
    """Functions of the candidate do not stand in for what the tests compare with: every assertion fails."""
    answer = "raise StopIteration" if "iteration" in name else "return 0"
    code = f"{SHADOWS[name]}\ndef f(x): {answer}"
    result = run_python(code, entry="f", tests=HELPED, limits=Limits(wall=30))
    assert (result.status, result.passed, result.total) == ("done", 0, 5), result


def test_the_means_of_the_tests_are_pythons_own() -> None:
    code = "def abs(x): return 0\ndef near(a, b): return False\ndef f(x): return 40 + x"
    assert run_python(code, entry="f", tests=HELPED).passed_all


def test_an_entry_may_be_called_as_a_builtin_is() -> None:
    code = "def sum(items): return 7\ndef double(x): return 2 * x\ndef max(x): return 0"
    assert run_python(code, entry="sum", tests="assert sum([1]) == 7 and double(2) == 4 and max(1, 2) == 2").passed_all
