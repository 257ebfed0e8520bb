"""The decoding step as loops of our own (native.cpp), for CPUs: built once a machine, chosen by ``compile=True``.

The whole step is one call. With few rows a product is bound by reading the weights, and bf16 weights are read as they
are, which torch's own products of a few bf16 rows are far from. With many rows the weights are packed once for torch's
small products (core/native.py), and what would lie between two products is done while their results are in the cache.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_float, c_int, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from fledge.core.errors import ConfigError
from fledge.core.native import computes, load_loops, small_products
from fledge.generate.cache import Cache
from fledge.generate.step import Caches, Step
from fledge.generate.weights import LayerWeights
from fledge.model.decoder import Decoder
from fledge.model.rotary import Rotary

FEW = 8  # rows up to which weights are read as they are
TILE = 64  # outputs of a packed tile


class _Model(Structure):
    _fields_ = (
        ("layers", c_int64), ("hidden", c_int64), ("inner", c_int64), ("eps", c_float), ("weights", c_void_p),
        ("embedding", c_void_p), ("norm", c_void_p), ("product", c_void_p), ("release", c_void_p),
    )  # fmt: skip


class _Rows(Structure):
    _fields_ = (
        ("rows", c_int64), ("heads", c_int64), ("shared", c_int64), ("size", c_int64), ("width", c_int64),
        ("room", c_int64), ("at", c_int64), ("cos", c_void_p), ("sin", c_void_p), ("position", c_void_p),
        ("prompt_of", c_void_p), ("length", c_void_p), ("start", c_void_p),
    )  # fmt: skip


_FUNCTIONS = {
    "fledge_step": (c_int, POINTER(_Model), POINTER(_Rows), c_int64, *[c_void_p] * 4, c_int),
    "fledge_head": (c_int, POINTER(_Model), *[c_void_p] * 3, c_int64, c_int64, c_int),
}


@functools.cache
def library() -> ctypes.CDLL | str:
    """The built loops, or why there are none."""
    try:
        return load_loops(Path(__file__).with_name("native.cpp"), _FUNCTIONS)
    except ConfigError as error:
        return str(error)


def missing(decoder: Decoder) -> str:
    """Why the loops cannot decode with this model here; empty where they can. Builds them where they are not yet."""
    weight = decoder.output_weight
    if weight.device.type != "cpu":
        return "the compiled step is for CPUs"
    if weight.dtype not in (torch.float32, torch.bfloat16):
        return f"it computes with float32 or bfloat16 weights, not {weight.dtype}"
    loops = library()
    return loops if isinstance(loops, str) else ""


class NativeStep(Step):
    """As `Step`; hidden states are float32, and the cache is of the weights' type, as keys are in training."""

    @staticmethod
    def serves(dtype: torch.dtype, rows: int) -> bool:
        """Whether so many rows are its: beyond a few it needs torch's small products of this type."""
        return rows <= FEW or computes(dtype)

    def __init__(self, decoder: Decoder, rotary: Rotary, positions: int, rows: int) -> None:
        super().__init__(decoder, rotary, positions, rows)
        dtype = self.weights.norm.dtype
        loops = library()
        assert not isinstance(loops, str), loops  # `missing` was asked before
        self.library, self.half, self.threads = loops, int(dtype == torch.bfloat16), torch.get_num_threads()
        self.cos, self.sin = self.cos.contiguous(), self.sin.contiguous()
        products = small_products() if rows > FEW else None
        self.packs = products is not None
        config, weights = self.config, self.weights
        self._held = [w for layer in weights.layers for w in self._layer_weights(layer)]  # pointers keep nothing alive
        self.weights = weights._replace(layers=())
        self.embedding, self._heads = weights.embedding.contiguous(), dict[tuple[int, int], Tensor]()
        self._pointers = _pointers(self._held)
        self.model = _Model(
            config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.rms_norm_eps,
            ctypes.addressof(self._pointers), self.embedding.data_ptr(), weights.norm.data_ptr(),
            products.of(dtype) if products else None, products.release if products else None,
        )  # fmt: skip

    def _layer_weights(self, layer: LayerWeights) -> tuple[Tensor | None, ...]:
        gate_up = layer.gate_up.split(self.config.intermediate_size, 1)
        return (
            layer.first_norm, self._matrix(layer.joined), layer.bias, self._matrix(layer.out), layer.second_norm,
            torch.cat([self._matrix(part) for part in gate_up]), self._matrix(layer.down),
        )  # fmt: skip

    def _matrix(self, weight: Tensor) -> Tensor:
        """(in, out) -> as the loops read it: (out, in) row by row; packed, (out / 64, in / p, 64, p) with zeros where
        there is nothing, p = 2 for bf16, whose inputs are whole thirty-twos, and 1 for float32."""
        if not self.packs:
            return weight.t().contiguous()
        inputs, outputs = weight.shape
        whole = torch.nn.functional.pad(weight.t(), (0, -inputs % 32 if self.half else 0, 0, -outputs % TILE))
        return whole.view(-1, TILE, whole.shape[1] // (1 + self.half), 1 + self.half).transpose(1, 2).contiguous()

    @staticmethod
    def dtype(decoder: Decoder, rows: int) -> torch.dtype:
        return decoder.output_weight.dtype  # the loops read bf16 as it is

    @staticmethod
    def cache_dtype(weight: Tensor) -> torch.dtype:
        return weight.dtype

    def logits(self, hidden: Tensor, usable: int) -> tuple[Tensor, Tensor | None]:
        hidden, size = hidden.float().contiguous(), self.weights.head.shape[1]
        rest = self._logits(hidden, usable, size) if usable < size else None
        return self._logits(hidden, 0, usable), rest

    def _logits(self, hidden: Tensor, start: int, end: int) -> Tensor:
        """Of these rows of the vocabulary."""
        if (start, end) not in self._heads:
            self._heads[start, end] = self._matrix(self.weights.head[:, start:end])
        out = torch.empty(len(hidden), end - start, dtype=torch.float32, device="cpu")
        self.library.fledge_head(
            self.half, byref(self.model), self._heads[start, end].data_ptr(), hidden.data_ptr(), out.data_ptr(),
            end - start, len(hidden), self.threads,
        )  # fmt: skip
        return out

    def __call__(self, tokens: Tensor, caches: Caches) -> Tensor:
        blocks = [cache for cache in caches if isinstance(cache, Cache)]  # the engine gives no pages to these loops
        tokens, known = tokens.contiguous(), [self._rows(cache) for cache in blocks]  # whose tensors must live on
        sets = (_Rows * len(blocks))(*[rows for rows, _ in known])
        none: list[Tensor | None] = [None] * self.config.num_hidden_layers
        prompts = _pointers([x for cache in blocks for x in cache.prompt or none])
        out = torch.empty(len(tokens), self.config.hidden_size, dtype=torch.float32, device="cpu")
        self.library.fledge_step(
            self.half, byref(self.model), sets, len(blocks), tokens.data_ptr(), prompts,
            _pointers([x for cache in blocks for x in cache.own]), out.data_ptr(), self.threads,
        )  # fmt: skip
        for cache in blocks:
            cache.used += 1
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


def _pointers(tensors: Sequence[Tensor | None]) -> ctypes.Array[c_void_p]:
    return (c_void_p * len(tensors))(*[None if x is None else x.data_ptr() for x in tensors])
