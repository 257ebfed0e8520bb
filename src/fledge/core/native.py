"""C++ loops of our own: built when first asked for, kept in the user's cache folder, called through ctypes."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fledge.core.errors import ConfigError
from fledge.core.machine import cpu_flags, cxx_compiler

if TYPE_CHECKING:
    import torch

WRONG = 2e-2  # a relative error in bf16 is a tenth of it
_SHARED = Path(__file__).with_name("lanes.h")
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-fopenmp")


Arguments = Mapping[str, Sequence[Any]]  # of functions by name, as ctypes has them


def load_loops(source: Path, functions: Arguments | None = None, numbers: Arguments | None = None) -> ctypes.CDLL:
    """The library of a C++ file, from the cache folder (XDG_CACHE_HOME) or built now, with its ``functions`` that
    return nothing and its ``numbers``, which return an int64. Raises ConfigError, saying what is missing."""
    compiler = cxx_compiler()
    if not compiler:
        raise ConfigError("there is no C++ compiler: install g++, or name one in CXX")
    try:
        loaded = ctypes.CDLL(str(_built(compiler, source)))
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home folder
        raise ConfigError(f"{source.name}: {error}; name another folder in XDG_CACHE_HOME") from error
    for result, table in ((None, functions), (ctypes.c_int64, numbers)):
        for name, arguments in (table or {}).items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = arguments, result
    return loaded


def _built(compiler: str, source: Path) -> Path:
    facts = [*(path.read_text(encoding="utf-8") for path in (source, _SHARED)), compiler, *_FLAGS, *sorted(cpu_flags())]
    name = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fledge"
    target = folder / f"{source.stem}-{name}.so"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as made_in:
        made = Path(made_in) / "made.so"  # renamed when whole: others may be building it too
        command = [*compiler.split(), *_FLAGS, f"-I{_SHARED.parent}", str(source), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = "\n".join(done.stderr.strip().splitlines()[-5:])
            raise ConfigError(f"{' '.join(command)} failed:\n{last}")
        return made.replace(target)


@dataclass(frozen=True)
class SmallProducts:
    """Addresses of torch's small products (oneDNN's brgemm, with AMX where there is AMX), which its own kernels call
    from within a thread: ``product(M, N, K, lda, ldb, ldc, add, A, B, C, pairs)``, C (M, N) float = or += A (M, K)
    times B (K, N). B is row by row; in bf16 (``pairs``) two neighbouring rows are interleaved: (K / 2, N, 2).
    ``release(pairs)`` ends a thread's use of them. Of types that cannot be computed here the address is 0."""

    float32: int
    bfloat16: int
    release: int

    def of(self, dtype: torch.dtype) -> int:
        return int(getattr(self, str(dtype).removeprefix("torch."), 0))


def named(name: str, flops: int = 0) -> AbstractContextManager[object]:
    """What is computed within is one operation for a profiler, ``fledge::name``, with ``flops`` of products where
    there are any (train/trace.py reads both). Nothing where no profiler is watching."""
    import torch

    if torch.autograd._profiler_enabled():
        return torch.profiler.record_function(f"fledge::{name}#{flops}" if flops else f"fledge::{name}")
    return nullcontext()


def computes(dtype: torch.dtype) -> bool:
    """Whether there are small products of this type here."""
    products = small_products()
    return products is not None and bool(products.of(dtype))


def slopes(
    values: Sequence[torch.Tensor], upstream: Sequence[torch.Tensor], of: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Gradients, for a library's ``error``. To hand upstream ones to torch.autograd imports sympy (0.5 s, 30 MiB)."""
    import torch

    total = sum(((v * u).sum() for v, u in zip(values, upstream, strict=True)), torch.zeros(()))
    return torch.autograd.grad(total, of, retain_graph=True)


def refusal(error: Callable[[], float], products: Sequence[torch.dtype] = ()) -> str:
    """Why loops are not to be had here; empty where they are. ``error``: of a small computation of theirs, relative; it
    builds them. ``products``: they need small products, of one of these types."""
    import torch

    if torch.cuda.is_available():
        return "it is for CPUs"
    if not _has_avx512():
        return "it needs a processor with AVX-512"
    if products and small_products() is None:
        return "it needs torch's small products"
    names = [str(dtype).removeprefix("torch.") for dtype in products]
    if products and not any(computes(dtype) for dtype in products):
        return f"torch has no small products of {' or '.join(names)} here"
    try:
        found = error()
    except ConfigError as problem:
        return str(problem)
    return f"it computes wrong values here (error {found:.1e})" if not found < WRONG else ""


# at::native::cpublas::brgemm and brgemm_release, as g++ names them
_PRODUCT = "_ZN2at6native7cpublas6brgemmEllllllbPK"
_NAMES = (_PRODUCT + "fS3_Pfb", _PRODUCT + "N3c108BFloat16ES5_Pfb", "_ZN2at6native7cpublas14brgemm_releaseEb")


def _has_avx512() -> bool:
    return {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= cpu_flags()


def small_products() -> SmallProducts | None:
    """None where there are none: no AVX-512 (oneDNN has them for nothing less), no C++ compiler to try them, another
    torch, or oneDNN switched off (``torch.backends.mkldnn.enabled``)."""
    import torch

    return _tried() if torch.backends.mkldnn.enabled else None


@functools.cache
def _tried() -> SmallProducts | None:
    import torch

    if not _has_avx512():
        return None
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        float32, bfloat16, release = (ctypes.cast(getattr(library, n), ctypes.c_void_p).value or 0 for n in _NAMES)
        loops = load_loops(Path(__file__).with_name("products.cpp"))
    except (OSError, AttributeError, ConfigError):
        return None
    pairs = ((torch.float32, float32), (torch.bfloat16, bfloat16))
    good = [address if _agrees(loops, dtype, address, release) else 0 for dtype, address in pairs]
    return SmallProducts(good[0], good[1], release) if any(good) else None


def _agrees(loops: ctypes.CDLL, dtype: torch.dtype, address: int, release: int) -> bool:
    """Whether a product of this type is computed, and rightly: torch has them for AVX-512, but oneDNN those of bf16
    only where the processor has instructions for them, and an exception in a thread of ours could not be caught."""
    import torch

    m, n, k = 16, 64, 32
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(*size, generator=generator, dtype=torch.float32).to(dtype) for size in ((m, k), (k, n)))
    paired = dtype == torch.bfloat16
    right = b.view(k // 2, 2, n).transpose(1, 2).contiguous() if paired else b
    out = torch.zeros(m, n, dtype=torch.float32)
    numbers = [ctypes.c_int64(x) for x in (m, n, k)]
    pointers = [ctypes.c_void_p(x) for x in (a.data_ptr(), right.data_ptr(), out.data_ptr())]
    failed = loops.fledge_try(
        ctypes.c_void_p(address), ctypes.c_void_p(release), ctypes.c_bool(paired), *numbers, *pointers
    )
    return not failed and bool(torch.allclose(out, a.float() @ b.float(), atol=1e-3, rtol=1e-3))
