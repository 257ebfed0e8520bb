"""The decoding step as loops of our own (native.cpp), for CPUs: built once a machine, chosen by ``compile=True``.

With few rows the whole step is one call: a product of so few rows is bound by reading the weights, and bf16 weights are
read as they are, which torch's own products of a few bf16 rows are far from. With many rows torch's products are
faster, so they are used, and the loops do what lies between them.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_float, c_int, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from fledge.core.errors import ConfigError
from fledge.core.machine import cpu_flags, cxx_compiler
from fledge.generate.cache import Cache
from fledge.generate.step import Step
from fledge.model.decoder import Decoder
from fledge.model.rotary import Rotary

FEW = 16  # rows up to which products are done by our loops; from their rates at 1 row and at 64, not yet measured
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-fopenmp")


class _Model(Structure):
    _fields_ = (
        ("layers", c_int64), ("hidden", c_int64), ("inner", c_int64), ("eps", c_float), ("weights", c_void_p),
        ("embedding", c_void_p), ("norm", c_void_p),
    )  # fmt: skip


class _Rows(Structure):
    _fields_ = (
        ("rows", c_int64), ("heads", c_int64), ("shared", c_int64), ("size", c_int64), ("width", c_int64),
        ("room", c_int64), ("at", c_int64), ("cos", c_void_p), ("sin", c_void_p), ("position", c_void_p),
        ("prompt_of", c_void_p), ("length", c_void_p), ("start", c_void_p),
    )  # fmt: skip


_ARGUMENTS = {
    "fledge_step": (c_int, POINTER(_Model), POINTER(_Rows), *[c_void_p] * 4, c_int),
    "fledge_product": (c_int, c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_int),
    "fledge_attend": (c_int, c_void_p, c_void_p, POINTER(_Rows), c_void_p, c_void_p, c_int),
    "fledge_add_norm": (c_int, *[c_void_p] * 4, c_int64, c_int64, c_float, c_int),
    "fledge_silu": (c_int, c_void_p, c_void_p, c_int64, c_int64, c_int),
}


@functools.cache
def library() -> ctypes.CDLL:
    """The built loops, from the cache folder of the user (XDG_CACHE_HOME) or built now. Raises ConfigError, saying what
    is missing."""
    compiler = cxx_compiler()
    if not compiler:
        raise ConfigError("compile=True needs a C++ compiler: install g++ or name one in CXX, or leave compile out")
    source = Path(__file__).with_name("native.cpp")
    facts = [source.read_text(encoding="utf-8"), compiler, *_FLAGS, *sorted(cpu_flags())]
    name = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fledge"
    target = folder / f"step-{name}.so"
    if not target.exists():
        _build(compiler, source, target)
    loaded = ctypes.CDLL(str(target))
    for function, arguments in _ARGUMENTS.items():
        getattr(loaded, function).argtypes = arguments
        getattr(loaded, function).restype = None
    return loaded


def _build(compiler: str, source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / "step.so"  # renamed when whole: others may be building it too
            command = [*compiler.split(), *_FLAGS, str(source), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                last = "\n".join(done.stderr.strip().splitlines()[-5:])
                raise ConfigError(f"compile=True: {' '.join(command)} failed; leave compile out, or see to it:\n{last}")
            made.replace(target)
    except OSError as error:
        raise ConfigError(f"compile=True: {target}: {error}; name another folder in XDG_CACHE_HOME") from error


class NativeStep(Step):
    """As `Step`; hidden states are float32 where the rows are few."""

    def __init__(self, decoder: Decoder, rotary: Rotary, positions: int, rows: int) -> None:
        super().__init__(decoder, rotary, positions, rows)
        dtype = self.weights.norm.dtype
        if dtype not in (torch.float32, torch.bfloat16):
            raise ConfigError(f"compile=True computes with float32 or bfloat16 weights, not {dtype}; leave it out")
        self.library, self.half, self.threads = library(), int(dtype == torch.bfloat16), torch.get_num_threads()
        self.cos, self.sin = self.cos.contiguous(), self.sin.contiguous()
        config, weights = self.config, self.weights
        self._held = [_whole(w) for layer in weights.layers for w in layer]  # pointers keep nothing alive
        self.embedding, self.head = weights.embedding.contiguous(), weights.head.t().contiguous()
        self._pointers = _pointers(self._held)
        self.model = _Model(
            config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.rms_norm_eps,
            ctypes.addressof(self._pointers), self.embedding.data_ptr(), weights.norm.data_ptr(),
        )  # fmt: skip

    @staticmethod
    def dtype(decoder: Decoder, rows: int) -> torch.dtype:
        return decoder.output_weight.dtype  # the loops read bf16 as it is

    def __call__(self, tokens: Tensor, caches: list[Cache]) -> Tensor:
        few = len(caches) == 1 and len(tokens) <= FEW
        hidden = self._few(tokens, caches[0]) if few else self._many(tokens, caches)
        for cache in caches:
            cache.used += 1
        return hidden

    def logits(self, hidden: Tensor, usable: int) -> tuple[Tensor, Tensor | None]:
        if len(hidden) > FEW:
            return super().logits(hidden, usable)
        hidden, size = hidden.float().contiguous(), len(self.head)
        rest = self._product(hidden, self.head[usable:]) if usable < size else None
        return self._product(hidden, self.head[:usable]), rest

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        out = torch.empty(len(x), len(weight))
        self.library.fledge_product(
            self.half, weight.data_ptr(), x.data_ptr(), out.data_ptr(), x.shape[1], len(weight), len(x), self.threads
        )
        return out

    def _rows(self, cache: Cache) -> tuple[_Rows, list[Tensor]]:
        """What attention needs to know of a cache, and the tensors that it points into."""
        config, position = self.config, cache.positions
        tensors = [self.cos, self.sin, position, cache.prompt_of, cache.starts, cache.begins]
        kv = config.num_key_value_heads
        rows = _Rows(
            cache.rows, kv, config.num_attention_heads // kv, config.head_dim, cache.width, cache.own[0].shape[2],
            cache.column, *[x.data_ptr() for x in tensors],
        )  # fmt: skip
        return rows, tensors

    def _few(self, tokens: Tensor, cache: Cache) -> Tensor:
        rows, held = self._rows(cache)
        tokens = tokens.contiguous()
        out = torch.empty(len(tokens), self.config.hidden_size)
        prompts = _pointers(cache.prompt) if cache.prompt else None
        self.library.fledge_step(
            self.half, byref(self.model), byref(rows), tokens.data_ptr(), prompts, _pointers(cache.own), out.data_ptr(),
            self.threads,
        )  # fmt: skip
        del held
        return out

    def _many(self, tokens: Tensor, caches: list[Cache]) -> Tensor:
        lib, half, threads, config = self.library, self.half, self.threads, self.config
        count, weights = len(tokens), self.weights
        known = [self._rows(cache) for cache in caches]
        x = torch.nn.functional.embedding(tokens, weights.embedding).float()
        new = lambda width: torch.empty(count, width, dtype=weights.norm.dtype)  # noqa: E731
        unit, more, inner = new(config.hidden_size), new(config.hidden_size), new(config.intermediate_size)
        y, gates = new(weights.layers[0].joined.shape[1]), new(2 * config.intermediate_size)
        out = new(config.num_attention_heads * config.head_dim)

        def add_norm(added: Tensor | None, weight: Tensor) -> None:
            lib.fledge_add_norm(
                half, x.data_ptr(), None if added is None else added.data_ptr(), weight.data_ptr(), unit.data_ptr(),
                count, config.hidden_size, config.rms_norm_eps, threads,
            )  # fmt: skip

        for index, layer in enumerate(weights.layers):
            add_norm(more if index else None, layer.first_norm)
            if layer.bias is None:
                torch.mm(unit, layer.joined, out=y)
            else:
                torch.addmm(layer.bias, unit, layer.joined, out=y)
            start = 0
            for cache, (rows, _) in zip(caches, known, strict=True):
                prompt = cache.prompt[index].data_ptr() if cache.prompt else None
                lib.fledge_attend(
                    half, y[start].data_ptr(), out[start].data_ptr(), byref(rows), prompt, cache.own[index].data_ptr(),
                    threads,
                )  # fmt: skip
                start += cache.rows
            torch.mm(out, layer.out, out=more)
            add_norm(more, layer.second_norm)
            torch.mm(unit, layer.gate_up, out=gates)
            lib.fledge_silu(half, gates.data_ptr(), inner.data_ptr(), count, config.intermediate_size, threads)
            torch.mm(inner, layer.down, out=more)
        add_norm(more, weights.norm)
        return unit


def _whole(weight: Tensor | None) -> Tensor | None:
    """As the loops read it: (out, in), row by row."""
    return None if weight is None else weight.t().contiguous() if weight.ndim == 2 else weight.contiguous()


def _pointers(tensors: Sequence[Tensor | None]) -> ctypes.Array[c_void_p]:
    return (c_void_p * len(tensors))(*[None if x is None else x.data_ptr() for x in tensors])
