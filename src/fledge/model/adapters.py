"""LoRA (Hu et al. 2021, 2106.09685): y = W x + s·B A x, with W frozen; in and out in peft's file format.

``s`` is alpha / r, or alpha / sqrt(r) (rsLoRA, Kalajdzievski 2023, 2312.03732). There is no dropout of adapters.
`merge` makes a plain decoder of it: what the engine samples from, what is evaluated, what another stage starts from.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fledge.core.artefact import fingerprint, is_finished, read_manifest
from fledge.core.config import Config
from fledge.core.errors import ArtefactError
from fledge.model.decoder import Decoder

Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TARGETS: tuple[Target, ...] = get_args(Target)
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
D = TypeVar("D", bound=Decoder)


class LoraConfig(Config):
    """Which projections get an adapter, and how large it is."""

    r: int = Field(default=16, gt=0, description="rank")
    alpha: float = Field(default=32.0, gt=0, description="the update is scaled by alpha / r")
    rslora: bool = Field(default=False, description="scale by alpha / sqrt(r) instead (2312.03732)")
    targets: tuple[Target, ...] = Field(default=TARGETS, min_length=1, description="projections of every block")
    merged: bool = Field(
        default=False, description="write the whole model with the adapters in it, instead of an adapter folder"
    )

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)


class LoraLinear(nn.Linear):
    """A frozen linear layer with an adapter: ``lora_A`` (r, in) and ``lora_B`` (out, r)."""

    def __init__(self, base: nn.Linear, r: int, scale: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.scale = base.in_features, base.out_features, scale
        self.weight, self.bias = base.weight, base.bias
        where = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.lora_A = nn.Linear(self.in_features, r, bias=False, **where)
        self.lora_B = nn.Linear(r, self.out_features, bias=False, **where)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + self.lora_B(self.lora_A(x) * self.scale)

    @torch.no_grad()
    def whole(self) -> Tensor:
        """W + s·B A, made in float32: (out, in) in the weight's type."""
        update = self.lora_B.weight.float() @ self.lora_A.weight.float()
        return (self.weight.float() + self.scale * update).to(self.weight.dtype)


def adapters(decoder: Decoder) -> dict[str, LoraLinear]:
    """Name -> layer; empty for a plain decoder."""
    return {name: module for name, module in decoder.named_modules() if isinstance(module, LoraLinear)}


def add_adapters(decoder: Decoder, config: LoraConfig, seed: int) -> Decoder:
    """Freeze the decoder and put adapters on it that change nothing yet: A is drawn as peft draws it, uniform within
    1 / sqrt(in), and B is 0. The same from the same seed, whatever was drawn before. A scalar head stays in training,
    as peft has it for sequence classification."""
    for name, parameter in decoder.named_parameters():
        parameter.requires_grad_(name == "score.weight")
    generator = torch.Generator().manual_seed(seed)
    for name, module in list(decoder.named_modules()):
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in config.targets:
            layer = LoraLinear(module, config.r, config.scale)
            bound = 1 / math.sqrt(module.in_features)
            drawn = torch.empty(layer.lora_A.weight.shape).uniform_(-bound, bound, generator=generator)
            with torch.no_grad():
                layer.lora_A.weight.copy_(drawn)
                layer.lora_B.weight.zero_()
            _replace(decoder, name, layer)
    return decoder


def skeleton(decoder: D) -> D:
    """A decoder of the same shape, with adapters where this one has them, on the meta device."""
    with torch.device("meta"):
        made = decoder.twin()
        layers = dict(made.named_modules())
        for name, layer in adapters(decoder).items():
            base = layers[name]
            assert isinstance(base, nn.Linear)
            _replace(made, name, LoraLinear(base, layer.lora_A.out_features, layer.scale))
    return made


def merge(decoder: D) -> D:
    """A plain decoder with the adapters in its weights. All other tensors are shared with this one."""
    return _plain(decoder, {f"{name}.weight": layer.whole() for name, layer in adapters(decoder).items()})


def without_adapters(decoder: D) -> D:
    """The decoder that the adapters were put on; it shares all tensors with this one."""
    return _plain(decoder, {})


def _plain(decoder: D, changed: dict[str, Tensor]) -> D:
    with torch.device("meta"):
        made = decoder.twin()
    tensors = {name: p.detach() for name, p in decoder.named_parameters() if ".lora_" not in name}
    made.load_state_dict({**tensors, **changed}, assign=True)
    return made.requires_grad_(False)


def _replace(decoder: Decoder, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(decoder.get_submodule(parent), last, layer)


# ------------------------------------------------------------------------------------------ in and out


def save_adapters(decoder: Decoder, config: LoraConfig, base: Path, folder: Path) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors`` as peft reads them."""
    values = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base), "inference_mode": True,
        "r": config.r, "lora_alpha": config.alpha, "use_rslora": config.rslora, "lora_dropout": 0.0, "bias": "none",
        "target_modules": sorted(config.targets), "fan_in_fan_out": False, "init_lora_weights": True,
    }  # fmt: skip
    tensors = {
        _PREFIX + name: p.detach().to("cpu", torch.float32).contiguous()
        for name, p in decoder.named_parameters()
        if ".lora_" in name
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def base_of(folder: Path) -> Path:
    """The model folder that the adapters of a folder belong to: where they say that it lies, or beside them, if a run
    was moved. Raises `ArtefactError` where it is not there, or is not what the adapters were trained on."""
    path = folder / CONFIG
    named = Path(str(_read(path).get("base_model_name_or_path"))).expanduser()
    beside = Path(os.path.abspath(folder)).parent / named.name
    there = [place for place in (named, beside) if place.is_dir()]
    if not there:
        raise ArtefactError(
            f"{path}: the adapters belong to the model {str(named)!r}, which is no folder here; put it there, or write "
            "in 'base_model_name_or_path' where it lies (nothing is downloaded)"
        )
    mark = read_manifest(folder)["inputs"].get("model") if is_finished(folder) else None
    matching = [place for place in there if mark is None or not is_finished(place) or fingerprint(place) == mark]
    if not matching:
        raise ArtefactError(f"{there[0]}: was made again since the adapters of {folder} were trained on it")
    return matching[0]


def tokenizer_folder(folder: Path) -> Path:
    """Where the tokenizer of a model folder lies: adapters may have been saved without one."""
    own = (folder / "tokenizer.json").is_file() or not is_adapter(folder)
    return folder if own else base_of(folder)


def load_adapters(folder: Path, decoder: D) -> D:
    """The decoder that the adapters of a folder belong to, with them merged into its weights, in place.

    Raises `ArtefactError` for what is not plain LoRA on projections, or does not fit this decoder.
    """
    path = folder / CONFIG
    values = _read(path)
    _refuse(path, values)
    if not (folder / WEIGHTS).is_file():
        raise ArtefactError(f"{folder}: holds {CONFIG} but no {WEIGHTS}; pickled adapters are never read")
    tensors = load_file(folder / WEIGHTS)
    layers = {name: module for name, module in decoder.named_modules() if isinstance(module, nn.Linear)}
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, part = key.removeprefix(_PREFIX).removesuffix(".weight").rpartition(".")
        if name not in layers or part not in ("lora_A", "lora_B"):
            raise ArtefactError(f"{folder / WEIGHTS}: {key!r} is no adapter of a projection of this model")
        pairs.setdefault(name, {})[part] = tensor.float()
    for name, pair in pairs.items():
        layer = layers[name]
        shape = (pair["lora_B"].shape[0], pair["lora_A"].shape[1]) if len(pair) == 2 else ()
        if shape != (layer.out_features, layer.in_features):
            raise ArtefactError(f"{folder / WEIGHTS}: the adapter of {name} is not whole, or not of this model's shape")
        rank = pair["lora_A"].shape[0]
        scale = float(values["lora_alpha"]) / (math.sqrt(rank) if values.get("use_rslora") else rank)
        with torch.no_grad():
            layer.weight.copy_(layer.weight.float() + scale * (pair["lora_B"] @ pair["lora_A"]))
    return decoder


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise ArtefactError(f"{path}: must hold a JSON object")
    return values


def _refuse(path: Path, values: dict[str, Any]) -> None:
    """What the folder asks for and `load_adapters` does not do."""
    if values.get("peft_type") != "LORA":
        raise ArtefactError(f"{path}: adapters of type {values.get('peft_type')!r} are not supported; only 'LORA' is")
    off = {
        "bias": "none", "use_dora": False, "fan_in_fan_out": False, "modules_to_save": None, "rank_pattern": {},
        "alpha_pattern": {}, "lora_bias": False, "trainable_token_indices": None, "target_parameters": None,
    }  # fmt: skip
    for key, neutral in off.items():
        if values.get(key) not in (None, neutral):
            raise ArtefactError(f"{path}: {key}={values[key]!r} is not supported; only {neutral!r} is")
