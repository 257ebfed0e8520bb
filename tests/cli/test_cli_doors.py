"""The doors, opened as a user opens them: in a process of their own."""

from __future__ import annotations

import io
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from fledge.cli import main
from fledge.commands.text import plain
from fledge.table import STAGES

DOORS = ("run", "chat", "evaluate", "inspect", "lineage", "report", "profile", "doctor", *STAGES)
TEXT = "The quick brown fox jumps over the lazy dog.\n一只敏捷的狐狸跳过了懒狗。\n" * 60


@dataclass
class Done:
    stdout: str
    stderr: str


def process(*arguments: str | Path, check: int = 0, **variables: str) -> Done:
    """A door opened in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", **variables}
    done = subprocess.run(
        [sys.executable, "-m", "fledge.cli", *map(str, arguments)],
        capture_output=True, text=True, env=environment, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == check, done.stderr + done.stdout
    return Done(done.stdout, done.stderr)


def fledge(*arguments: str | Path, check: int = 0, stdin: str = "", **variables: str) -> Done:
    """The same in this process, for speed."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name, value in {"COLUMNS": "100", **variables}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        patch.setattr(sys, "argv", ["fledge", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    assert code == check, err.getvalue() + out.getvalue()
    return Done(out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    out = folder / "tokenizer"
    fledge("tokenizer", f"extra=[{folder / 'text.txt'}]", "vocab_size=320", "--out", out)
    return out


def test_help_is_quick_and_light() -> None:
    code = "import sys, fledge.cli\ntry:\n    fledge.cli.app(['--help'])\nexcept SystemExit:\n    pass\n"
    code += "heavy = {'torch', 'numpy', 'pydantic', 'pyarrow', 'matplotlib', 'tokenizers'} & set(sys.modules)\n"
    code += "print('HEAVY', sorted(heavy))"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "HEAVY []" in done.stdout
    for door in DOORS:
        assert door in done.stdout
    # Processor time, because the machine may be busy with other things.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.mark.parametrize("door", DOORS)
def test_every_door_has_examples(door: str) -> None:
    from typer.testing import CliRunner

    from fledge.cli import app

    shown = CliRunner().invoke(app, [door, "--help"])
    assert shown.exit_code == 0
    assert "Examples:" in shown.output
    assert f"fledge {door}" in shown.output


def test_an_error_is_a_message() -> None:
    done = process("run", "no-such-recipe", check=1)
    assert "no recipe 'no-such-recipe'" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in process("run", "no-such-recipe", check=1, FLEDGE_DEBUG="1").stderr


def test_a_stage_alone(tokenizer: Path) -> None:
    text = tokenizer.parent / "text.txt"
    arguments = ["tokenizer", f"extra=[{text}]", "vocab_size=320", "--out", tokenizer]
    assert "done before, nothing to do" in fledge(*arguments).stdout
    config = tokenizer.parent / "tokenizer.yaml"
    config.write_text(f"extra: [{text}]\nvocab_size: 320\n", encoding="utf-8")
    assert "done before, nothing to do" in fledge("tokenizer", config, "--out", tokenizer).stdout
    said = fledge("tokenizer", config, "vocab_size=384", "--out", tokenizer, check=1).stderr
    assert "config.vocab_size: was 320, is 384" in said
    said = fledge("tokenizer", config, "vocab_sise=384", "--out", tokenizer, check=1).stderr
    assert "vocab_sise: unknown key; did you mean 'vocab_size'" in said
    assert "give --out DIR" in fledge("tokenizer", config, check=1).stderr
    assert "vocab_size" in fledge("tokenizer", "--keys").stdout
    dry = fledge("tokenizer", config, "--out", tokenizer.parent / "other", "--dry-run").stdout
    assert "vocab_size: 320" in dry
    assert not (tokenizer.parent / "other").exists()


def test_inspect_shows_the_mask(tokenizer: Path) -> None:
    data = tokenizer.parent / "chat.jsonl"
    data.write_text(
        '{"messages": [{"role": "user", "content": "fox \\u001b[31m"}, {"role": "assistant", "content": "dog"}]}\n',
        encoding="utf-8",
    )
    shown = fledge("inspect", data, "--tokenizer", tokenizer, NO_COLOR="1").stdout
    assert "⟦dog" in shown
    assert "\x1b[31m" not in shown
    assert (
        "unknown; one of response" in fledge("inspect", data, "--tokenizer", tokenizer, "--mask", "x", check=1).stderr
    )


def test_lineage_is_a_tree(tokenizer: Path) -> None:
    shown = fledge("lineage", tokenizer).stdout
    assert "tokenizer, seed 0" in shown
    assert "text.txt" in shown
    text = tokenizer.parent / "text.txt"
    text.write_text(TEXT + "more", encoding="utf-8")
    try:
        assert "changed since" in fledge("lineage", tokenizer).stdout
    finally:
        text.write_text(TEXT, encoding="utf-8")
    assert "not a finished artefact" in fledge("lineage", tokenizer.parent, check=1).stderr


def test_doctor() -> None:
    from fledge.core.machine import SWITCHES

    shown = fledge("doctor", COLUMNS="400").stdout
    facts = ("memory", "gpu", "training type", "compiled loops", "sandbox", "GFLOP/s", "GB/s", "torch")
    for fact in (*facts, "set_switches()"):
        assert fact in shown
    for switch in SWITCHES:
        assert switch.name in shown
        assert switch.off in shown, "how to turn it off"


def test_text_of_models_cannot_act_on_the_terminal() -> None:
    assert plain("a\x1b[31mred\x1b]0;title\x07\r\u202eb\n\t好") == "a[31mred]0;titleb\n\t好"


def test_a_run_can_be_interrupted_and_goes_on(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a real run: exit code 130, and the same command goes on."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "stages:\n"
        "  small: {stage: tokenizer, extra: [TEXT], vocab_size: 320}\n"
        "  world: {stage: microworld, preset: laptop}\n".replace("TEXT", str(tmp_path / "text.txt")),
        encoding="utf-8",
    )
    arguments = [sys.executable, "-m", "fledge.cli", "run", str(recipe), "--out", str(tmp_path / "runs")]
    running = subprocess.Popen(
        arguments, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        # where the tests are a background job of a shell, the signal would be ignored from birth
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith("[2/2] world"):
            break
    time.sleep(0.2)
    running.send_signal(2)
    said = running.stderr.read()
    assert running.wait(60) in (130, -signal.SIGINT), said  # a shell shows both as 130
    assert "stopped in stage 2 of 2 (world)" in said
    assert f"run {recipe} --out {tmp_path / 'runs'}" in said
    assert "Traceback" not in said
    done = fledge("run", recipe, "world.pages=20", "world.defect_rate=0", "--out", tmp_path / "runs", check=1)
    assert "half-made artefact here was made otherwise" in done.stderr
    tail = ["world.pages=20", "world.sft_conversations=20", "world.preference_pairs=10", "world.rl_tasks=10"]
    tail += ["world.tests_per_skill=1", "--redo", "world"]
    done = fledge("run", recipe, *tail, "--out", tmp_path / "runs")
    assert "[1/2] small  done before" in done.stderr
    assert (tmp_path / "runs/r/report.html").exists()
    again = fledge("run", recipe, *tail[:-2], "--out", tmp_path / "runs")
    assert "nothing to do" in again.stderr
