"""The sandbox: what runs in it, its limits, what it reports. Attacks have a file of their own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from reward_kinds import KINDS, every_kind

from fledge.reward import sandbox
from fledge.reward.sandbox import Job, Limits, Result, run_many, run_python

pytestmark = pytest.mark.skipif(not KINDS, reason="this machine cannot confine code: no namespaces, no Landlock")


@pytest.fixture(params=every_kind())
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def attack(kind: str, code: str, **limits: float) -> Result:
    """Run code as a script. The wall is far off, unless it is what is tested: the machine may be busy."""
    limits = {"wall": 30.0} | limits
    return run_many([Job(code, limits=Limits(**limits))], workers=1, kind=kind)[0]  # type: ignore[arg-type]


def judged(kind: str, code: str, tests: str) -> Result:
    return run_many([Job(code, "f", tests, Limits(wall=30))], workers=1, kind=kind)[0]


# ---- what works ------------------------------------------------------------------------------------------------------


def test_passing_and_failing_code(kind: str) -> None:
    tests = "assert f(1) == 2\nassert f(5) == 6"
    good, bad, broken, none = run_many(
        [
            Job(code, "f", tests)
            for code in ("def f(x): return x + 1", "def f(x): return 2", "def f(x) return", "g = 1")
        ],
        workers=1,
        kind=kind,
    )
    assert good.passed_all
    assert (good.passed, good.total) == (2, 2)
    assert (bad.passed, bad.total, bad.passed_all) == (1, 2, False)
    assert "assert f(5) == 6" in bad.detail
    assert "SyntaxError" in broken.detail
    assert "no function 'f'" in none.detail


def test_a_script_has_its_output_and_status(kind: str) -> None:
    result = attack(kind, "import sys\nprint('数', 1 + 1)\nsys.exit(3)")
    assert (result.status, result.output, result.exit) == ("done", "数 2\n", 3)
    assert "ZeroDivisionError" in attack(kind, "1 / 0").output


def test_the_standard_library_can_be_imported(kind: str) -> None:
    names = "math re json collections itertools functools heapq bisect string random statistics datetime decimal "
    names += "fractions typing dataclasses enum operator copy textwrap hashlib zlib tempfile"
    imports = "\n".join(f"import {name}" for name in names.split())
    code = f"{imports}\ndef f(x):\n    open('note', 'w').write(x)\n    return open('note').read(), math.sqrt(4)"
    assert judged(kind, code, "assert f('é') == ('é', 2.0)").passed_all


def test_plain_values_travel_both_ways(kind: str) -> None:
    code = """
from collections import Counter, OrderedDict
def f(x): return x
def g(n): return (i * i for i in range(n))
def h(items): items.sort()
def c(text): return Counter(text)
def bad(): raise KeyError("k")
def add(a, *, b=2): return a + b
class P: pass
def p(): return P()
"""
    tests = """
values = [None, True, 1, -2.5, 10 ** 5000, 1 + 2j, "s", b"b", [1, [2]], (1, "a"), {1, 2}, {}, {(1, 2): [3]}, range(3)]
for value in values:
    back = f(value)
    assert back == value and type(back) is type(value), value
import math
assert math.isinf(f(math.inf)) and math.isnan(f(math.nan))
assert list(g(4)) == [0, 1, 4, 9]
items = [3, 1, 2]
h(items)
assert items == [1, 2, 3]
assert c("aab") == {"a": 2, "b": 1}
assert add(1, b=5) == 6
try:
    bad()
except KeyError:
    pass
else:
    raise AssertionError("no KeyError")
try:
    p()
except Exception as problem:
    assert "type P" in str(problem)
else:
    raise AssertionError("an object came out")
"""
    result = judged(kind, code, tests)
    assert result.passed_all, result


def test_results_keep_the_order_and_workers_share(kind: str) -> None:
    jobs = [Job(f"def f(): return {number}", "f", f"assert f() == {number % 3}") for number in range(12)]
    results = run_many(jobs, workers=2, kind=kind)
    assert [result.passed_all for result in results] == [number == number % 3 for number in range(12)]


def test_nothing_is_left_between_jobs(kind: str) -> None:
    leave = "import os, math, builtins\nopen('left', 'w').write('x')\nmath.pi = 3\nbuiltins.leak = 1\n"
    look = "import os, math, builtins\ndef f(): return os.listdir('.'), math.pi > 3.1, hasattr(builtins, 'leak')"
    results = run_many([Job(leave), Job(look, "f", "assert f() == ([], True, False)")], workers=1, kind=kind)
    assert results[1].passed_all, results[1]


# ---- limits ----------------------------------------------------------------------------------------------------------


def test_memory(kind: str) -> None:
    result = attack(kind, "x = []\nwhile True: x.append(bytearray(1 << 24))", memory=256 << 20)
    assert "MemoryError" in result.output
    result = attack(kind, "import os\nos.memfd_create('x')")
    assert "PermissionError" in result.output


def test_disk_fill(kind: str) -> None:
    one = "f = open('big', 'wb')\nwhile True: f.write(b'x' * (1 << 20))"
    result = attack(kind, one, disk=4 << 20)
    assert result.exit != 0 or result.status == "disk"
    many = """
n = 0
while True:
    with open(f'f{n}', 'wb') as f:
        f.write(b'x' * (1 << 20))
    n += 1
"""
    result = attack(kind, many, disk=4 << 20)
    assert result.status == "disk" or "No space left" in result.output, result


def test_endless_output(kind: str) -> None:
    result = attack(kind, "while True: print('x' * 1000)")
    assert result.status == "output"
    assert len(result.output) <= Limits().output
    assert "too much output" in result.detail


def test_endless_loops_and_sleep(kind: str) -> None:
    jobs = [
        Job("while True: pass", limits=Limits(wall=0.4)),
        Job("import time\ntime.sleep(99)", limits=Limits(wall=0.4)),
    ]
    jobs.append(Job("def f():\n    while True: pass", "f", "assert f() == 1", Limits(wall=0.4)))
    assert [result.status for result in run_many(jobs, workers=1, kind=kind)] == ["timeout"] * 3


def test_processor_limit_holds_without_the_wall(kind: str) -> None:
    result = attack(kind, "while True: pass", wall=100, cpu=1)
    assert (result.status, result.exit) == ("done", -9)


def test_no_process_outlives_its_job(kind: str) -> None:
    """The whole tree ends with the call, also when code ignores signals."""
    before = _descendants()
    attack(kind, "import signal\nfor s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\nwhile True: pass", wall=0.3)
    assert _descendants() <= before


def _descendants() -> set[str]:
    out = subprocess.run(["ps", "-o", "pid=,args=", "-A"], capture_output=True, text=True, check=True).stdout
    return {line for line in out.splitlines() if f"fledge-sandbox-{os.getpid()}-" in line}


def test_no_folder_is_left(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    attack(kind, "open('x', 'w').write('y')")
    assert list(tmp_path.iterdir()) == []


# ---- the verdict -----------------------------------------------------------------------------------------------------

TESTS = "assert f(1) == 41\nassert f(2) == 42"


def test_honest_code_passes_the_same_tests() -> None:
    assert run_python("def f(x): return 40 + x", entry="f", tests=TESTS).passed_all


def test_bad_tests_are_told_apart() -> None:
    result = run_python("def f(x): return 1", entry="f", tests="assert f(")
    assert not result.passed_all
    assert "the tests are no Python" in result.detail


def test_tests_without_asserts_at_the_top_are_one() -> None:
    tests = "def check(g):\n    assert g(1) == 1\n    assert g(2) == 2\ncheck(f)"
    assert run_python("def f(x): return x", entry="f", tests=tests).passed_all
    assert run_python("def f(x): return 1", entry="f", tests=tests).passed == 0


def test_a_setup_that_fails_fails_all() -> None:
    result = run_python("def f(x): return 1", entry="f", tests="assert f(1) == 1\nundefined\nassert f(1) == 1")
    assert (result.passed, result.total) == (0, 2)


# ---- when there is no protection -------------------------------------------------------------------------------------


@pytest.fixture
def unconfined(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine on which nothing can confine code."""
    monkeypatch.setattr(sandbox, "KINDS", ("bubblewrap",))
    monkeypatch.setattr("shutil.which", lambda name: None)
    sandbox.protection.cache_clear()
    yield
    sandbox.protection.cache_clear()


@pytest.mark.parametrize("told", [None, "0", "yes"])
def test_refuses_without_protection(told: str | None, unconfined: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if told is None:
        monkeypatch.delenv(sandbox.UNPROTECTED, raising=False)
    else:
        monkeypatch.setenv(sandbox.UNPROTECTED, told)
    with pytest.raises(sandbox.SandboxUnavailable, match=r"bubblewrap: bwrap is not installed"):
        run_python("print(1)")


def test_runs_unprotected_where_told(unconfined: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits hold and verdicts are honest, but files can be read: `protection` says so."""
    monkeypatch.setenv(sandbox.UNPROTECTED, "1")
    found = sandbox.protection()
    assert found.kind == "none"
    assert "FLEDGE_UNPROTECTED_CODE=1" in found.detail
    assert run_python("def f(x): return 40 + x", entry="f", tests=TESTS).passed_all
    assert run_python("def f(x): return 0", entry="f", tests=TESTS).passed == 0
    assert run_python("while True: pass", limits=Limits(wall=0.3)).status == "timeout"
    assert "def test_runs" in run_python(f"print(open({__file__!r}).read())").output


def test_protection_is_not_given_up_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sandbox.UNPROTECTED, "1")
    sandbox.protection.cache_clear()
    assert sandbox.protection().kind == KINDS[0]


def test_a_leak_is_found_by_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the confinement lets something through, the kind is not used."""
    monkeypatch.setattr(sandbox, "runtime_paths", lambda: ["/"])
    gaps = sandbox.probe("landlock") if "landlock" in KINDS else ["reads files"]
    assert "reads files" in gaps


def test_protection_names_what_it_found() -> None:
    found = sandbox.protection()
    assert found.kind == KINDS[0]
    assert "seccomp" in found.detail


def test_nothing_to_do_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "protection", None)
    assert run_many([]) == []
