"""Loops of our own: built, kept, and refused with the reason; torch's small products where the processor has them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fledge.core.errors import ConfigError
from fledge.core.machine import bf16_instructions, cxx_compiler
from fledge.core.native import _built, load_loops, small_products

SAY = "from fledge.core.native import small_products as s; x = s(); print(x and (bool(x.float32), bool(x.bfloat16)))"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if not cxx_compiler():
        pytest.skip("there is no C++ compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "answer.cpp"
    path.write_text('extern "C" int answer() { return 42; }\n')
    return path


def test_a_library_is_built_once(source: Path) -> None:
    assert load_loops(source).answer() == 42
    (made,) = (source.parent / "cache" / "fledge").glob("answer-*.so")
    written = made.stat().st_mtime_ns
    assert load_loops(source).answer() == 42
    assert made.stat().st_mtime_ns == written
    source.write_text('extern "C" int answer() { return 43; }\n')
    assert load_loops(source).answer() == 43


def test_what_cannot_be_built_or_loaded_is_said(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _built(cxx_compiler(), source).write_bytes(b"this is no library")
    with pytest.raises(ConfigError, match="XDG_CACHE_HOME"):
        load_loops(source)
    source.write_text("this is no C++\n")
    with pytest.raises(ConfigError, match="failed"):
        load_loops(source)
    monkeypatch.setenv("XDG_CACHE_HOME", str(source))  # a file
    with pytest.raises(ConfigError, match="XDG_CACHE_HOME"):
        load_loops(source)


def test_a_type_without_products_has_the_other_path_of_attention() -> None:
    """bf16 on a processor without instructions for it: no error, but what runs where nothing is compiled."""
    if not small_products() or not bf16_instructions():
        pytest.skip("this processor has too little to play lesser ones")
    say = (
        "import torch; from fledge.model.tiles import Tiles, use_tiles as use\n"
        "for x in (torch.float32, torch.bfloat16): print(use(True, x), Tiles.on)"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}
    done = subprocess.run([sys.executable, "-c", say], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    float32, bfloat16 = done.stdout.splitlines()
    assert float32.strip() == "True"
    assert "small products of bfloat16" in bfloat16
    assert bfloat16.endswith("False")


@pytest.mark.parametrize(("most", "said"), [("AVX512_CORE", "(True, False)"), ("AVX512_CORE_BF16", "(True, True)")])
def test_small_products_are_those_that_the_processor_has(most: str, said: str) -> None:
    """On lesser processors, as far as oneDNN can be made to believe in them: torch throws where they are missing."""
    if not small_products() or not bf16_instructions():
        pytest.skip("this processor has too little to play lesser ones")
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": most}
    done = subprocess.run([sys.executable, "-c", SAY], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == said
