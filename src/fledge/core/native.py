"""C++ loops of our own: built when first asked for, kept in the user's cache folder, called through ctypes."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fledge.core.errors import ConfigError
from fledge.core.machine import cpu_flags, cxx_compiler

if TYPE_CHECKING:
    import torch

_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-fopenmp")


def load_loops(source: Path) -> ctypes.CDLL:
    """The library of a C++ file, from the cache folder (XDG_CACHE_HOME) or built now. Raises ConfigError, saying what
    is missing."""
    compiler = cxx_compiler()
    if not compiler:
        raise ConfigError("there is no C++ compiler: install g++, or name one in CXX")
    facts = [source.read_text(encoding="utf-8"), compiler, *_FLAGS, *sorted(cpu_flags())]
    name = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fledge"
    target = folder / f"{source.stem}-{name}.so"
    if not target.exists():
        _build(compiler, source, target)
    return ctypes.CDLL(str(target))


def _build(compiler: str, source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / "made.so"  # renamed when whole: others may be building it too
            command = [*compiler.split(), *_FLAGS, str(source), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                last = "\n".join(done.stderr.strip().splitlines()[-5:])
                raise ConfigError(f"{' '.join(command)} failed:\n{last}")
            made.replace(target)
    except OSError as error:
        raise ConfigError(f"{target}: {error}; name another folder in XDG_CACHE_HOME") from error


@dataclass(frozen=True)
class SmallProducts:
    """Addresses of torch's small products (oneDNN's brgemm, with AMX where there is AMX), which its own kernels call
    from within a thread: ``product(M, N, K, lda, ldb, ldc, add, A, B, C, pairs)``, C (M, N) float = or += A (M, K)
    times B (K, N). B is row by row; in bf16 (``pairs``) two neighbouring rows are interleaved: (K / 2, N, 2).
    ``release(pairs)`` ends a thread's use of them."""

    float32: int
    bfloat16: int
    release: int

    def of(self, dtype: torch.dtype) -> int:
        return int(getattr(self, str(dtype).removeprefix("torch.")))


# at::native::cpublas::brgemm and brgemm_release, as g++ names them
_PRODUCT = "_ZN2at6native7cpublas6brgemmEllllllbPK"
_NAMES = (_PRODUCT + "fS3_Pfb", _PRODUCT + "N3c108BFloat16ES5_Pfb", "_ZN2at6native7cpublas14brgemm_releaseEb")


@functools.cache
def small_products() -> SmallProducts | None:
    """None where the processor has no AVX-512 (torch has them for nothing less) or torch names them otherwise."""
    import torch

    if not {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= cpu_flags():
        return None
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        found = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in _NAMES]
    except (OSError, AttributeError):
        return None
    return SmallProducts(*found)
