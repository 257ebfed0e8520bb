"""Decoders in and out of Hugging Face folders: config.json, model.safetensors, generation_config.json.

Reads Qwen2 and Qwen2.5 (``Qwen2ForCausalLM``) and Llama-shaped models (``LlamaForCausalLM``, such as CT-LLM). What a
folder asks for and this decoder does not compute (scaled rotary positions, sliding windows, biases elsewhere, other
activations, custom code, pickled weights) is refused by name: a model that is nearly right answers nearly well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fledge.core.config import build
from fledge.core.errors import ArtefactError
from fledge.model.adapters import base_of, is_adapter, load_adapters
from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder

MODEL_TYPES = {"Qwen2ForCausalLM": "qwen2", "LlamaForCausalLM": "llama"}
# The same bodies under a scalar head, which scalar.py reads and writes.
CLASSIFIERS = {name.replace("CausalLM", "SequenceClassification"): name for name in MODEL_TYPES}
_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
# Buffers that old exports wrote beside the weights; the decoder computes them.
_IGNORED_SUFFIXES = ("rotary_emb.inv_freq",)


# ------------------------------------------------------------------------------------------------- out


def save_decoder(
    decoder: Decoder,
    folder: Path | str,
    generation: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a folder that ``AutoModelForCausalLM.from_pretrained`` loads.

    ``generation`` becomes generation_config.json; its ``eos_token_id``, ``bos_token_id`` and ``pad_token_id`` are
    written into config.json as well. The tied head is not written, as transformers does not.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config_json(decoder.config, generation, dtype))
    if generation is not None:
        save_generation(folder, generation)
    save_weights(decoder, folder, dtype)


def save_weights(decoder: Decoder, folder: Path, dtype: torch.dtype, left_out: Set[str] = frozenset()) -> None:
    """model.safetensors, without the parameters that are ``left_out``."""
    tensors = {
        name: p.detach().to("cpu", dtype).contiguous()
        for name, p in decoder.named_parameters()
        if name not in left_out
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def save_generation(folder: Path, generation: dict[str, Any]) -> None:
    """generation_config.json"""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "generation_config.json", generation)


def config_json(
    config: DecoderConfig, generation: dict[str, Any] | None = None, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """config.json for transformers 4 (``rope_theta``, ``torch_dtype``) and 5 (``rope_parameters``, ``dtype``)."""
    if dtype not in _DTYPES:
        raise ArtefactError(f"cannot write a decoder as {dtype}: choose one of {', '.join(_DTYPES.values())}")
    values: dict[str, Any] = {
        "architectures": [config.architecture],
        "model_type": MODEL_TYPES[config.architecture],
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_position_embeddings,
        "initializer_range": config.initializer_range,
        "rms_norm_eps": config.rms_norm_eps,
        "attention_dropout": 0.0,
        "tie_word_embeddings": config.tie_word_embeddings,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "use_cache": True,
        "torch_dtype": _DTYPES[dtype],
        "dtype": _DTYPES[dtype],
    }
    if config.architecture == "Qwen2ForCausalLM":
        values["use_sliding_window"] = False
    else:
        values |= {"attention_bias": False, "mlp_bias": False}
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        values[key] = (generation or {}).get(key)
    return values


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# -------------------------------------------------------------------------------------------------- in


def load_config(folder: Path | str, scalar: bool = False) -> DecoderConfig:
    """The shape of the model in a folder, or an error that says what cannot be used. ``scalar``: what has a scalar head
    is welcome too; its shape is that of the decoder under it."""
    folder = Path(folder)
    path = folder / "config.json"
    if not folder.is_dir():
        raise ArtefactError(f"{folder}: there is no such folder (models are local Hugging Face folders)")
    if is_adapter(folder):
        return load_config(base_of(folder), scalar)
    values = read_json(path)
    _refuse(path, values, scalar)
    rope = values.get("rope_parameters") or {}
    theta = rope.get("rope_theta", values.get("rope_theta", 10_000.0))
    heads = _required(path, values, "num_attention_heads")
    hidden = _required(path, values, "hidden_size")
    shape = {
        "architecture": CLASSIFIERS.get(values["architectures"][0], values["architectures"][0]),
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": _or(values.get("num_key_value_heads"), heads),
        "head_dim": _or(values.get("head_dim"), hidden // max(heads, 1)),
        "rms_norm_eps": values.get("rms_norm_eps", 1e-6),
        "rope_theta": theta,
        "tie_word_embeddings": values.get("tie_word_embeddings", False),
        "max_position_embeddings": values.get("max_position_embeddings", 2048),
        "initializer_range": values.get("initializer_range", 0.02),
    } | {key: _required(path, values, key) for key in ("vocab_size", "intermediate_size", "num_hidden_layers")}
    return build(DecoderConfig, shape, str(path))


def load_decoder(folder: Path | str, dtype: torch.dtype = torch.float32) -> Decoder:
    """Read config.json and the safetensors of a folder, one file or several with an index. Of a folder with adapters
    (peft's, plain LoRA) the model that they belong to is read, and they are merged into it.

    Tensors stored as bf16 or fp16 are cast to ``dtype``. Every tensor must be there once, with the shape that
    config.json says; nothing else may be there.
    """
    folder = Path(folder)
    config = load_config(folder)
    if is_adapter(folder):
        decoder = load_adapters(folder, load_decoder(base_of(folder), dtype))
        decoder.config, decoder.folder = config, folder
        return decoder
    with torch.device("meta"):
        decoder = Decoder(config)
    # some exports repeat the tied head; the embedding is what counts, as in transformers
    ignored = {"lm_head.weight"} if config.tie_word_embeddings else set()
    decoder.load_state_dict(read_weights(decoder, folder, dtype, ignored), strict=True, assign=True)
    decoder.folder = folder
    return decoder.requires_grad_(True)


def read_weights(
    decoder: Decoder, folder: Path, dtype: torch.dtype, ignored: Set[str], optional: Set[str] = frozenset()
) -> dict[str, Tensor]:
    """The tensors of a folder for the parameters of ``decoder``; ``ignored`` may be there, ``optional`` may lack."""
    config = decoder.config
    _check_tokenizer(folder, config.vocab_size)
    wanted = {name: parameter.shape for name, parameter in decoder.named_parameters()}
    found: dict[str, Tensor] = {}
    for path, name, tensor in model_tensors(folder):
        if name.endswith(_IGNORED_SUFFIXES) or name in ignored:
            continue
        if name not in wanted:
            raise ArtefactError(f"{path}: unexpected tensor {name!r}; {config.architecture} has no such parameter")
        if tensor.shape != wanted[name]:
            raise ArtefactError(
                f"{path}: tensor {name!r} has shape {tuple(tensor.shape)}, "
                f"but config.json asks for {tuple(wanted[name])}"
            )
        found[name] = tensor.to(dtype)
    missing = [name for name in wanted if name not in found and name not in optional]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        hint = _missing_hint(missing, config)
        raise ArtefactError(f"{folder}: the weights lack tensor {missing[0]!r}{more}{hint}")
    return found


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtefactError(f"{path}: there is no such file; a model folder needs it") from None
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise ArtefactError(f"{path}: must hold a JSON object")
    return value


def _required(path: Path, values: dict[str, Any], key: str) -> Any:
    if values.get(key) is None:
        raise ArtefactError(f"{path}: lacks {key!r}")
    return values[key]


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _refuse(path: Path, values: dict[str, Any], scalar: bool) -> None:
    """What the folder asks for and this decoder does not do."""
    if "auto_map" in values:
        raise ArtefactError(f"{path}: 'auto_map' names Python code to run; code from model folders is never executed")
    architectures = values.get("architectures")
    usable = {**MODEL_TYPES, **CLASSIFIERS} if scalar else MODEL_TYPES
    known = ", ".join(usable)
    if not isinstance(architectures, list) or len(architectures) != 1:
        raise ArtefactError(f"{path}: 'architectures' must name one class, is {architectures!r}; known: {known}")
    if architectures[0] in CLASSIFIERS and not scalar:
        raise ArtefactError(
            f"{path}: {architectures[0]!r} is a reward or value model, without a head over the vocabulary; "
            "give the folder of a language model"
        )
    if architectures[0] not in usable:
        raise ArtefactError(f"{path}: architecture {architectures[0]!r} is not supported; known: {known}")
    rope = values.get("rope_parameters") or {}
    scaling = values.get("rope_scaling") or {}
    for block, name in ((rope, "rope_parameters"), (scaling, "rope_scaling")):
        kind = block.get("rope_type", block.get("type", "default"))
        if kind != "default":
            raise ArtefactError(f"{path}: {name} of type {kind!r} is not supported yet; only 'default' positions are")
    fraction = rope.get("partial_rotary_factor", values.get("partial_rotary_factor", 1.0))
    off = {
        "use_sliding_window": False, "attention_bias": False, "mlp_bias": False, "quantization_config": None,
        "attention_dropout": 0.0,
    }  # fmt: skip
    for key, neutral in off.items():
        if values.get(key) not in (None, neutral):
            raise ArtefactError(f"{path}: {key}={values[key]!r} is not supported; only {neutral!r} is")
    if "sliding_attention" in (values.get("layer_types") or []):
        raise ArtefactError(f"{path}: layer_types holds 'sliding_attention', which is not supported")
    if fraction not in (None, 1, 1.0):
        raise ArtefactError(f"{path}: partial_rotary_factor={fraction!r} is not supported; only 1.0 is")
    if values.get("hidden_act", "silu") != "silu":
        raise ArtefactError(f"{path}: hidden_act={values['hidden_act']!r} is not supported; only 'silu' is")


def _check_tokenizer(folder: Path, rows: int) -> None:
    """A tokenizer that makes ids without a row would fail, or read memory, in the middle of a run."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return
    values = read_json(path)
    model = values.get("model") or {}
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else []
    ids += [token["id"] for token in values.get("added_tokens") or []]
    if ids and max(ids) >= rows:
        raise ArtefactError(
            f"{path}: the largest token id is {max(ids)}, but the embedding has {rows} rows (config.json vocab_size); "
            "this tokenizer does not belong to this model"
        )


def model_tensors(folder: Path) -> Iterator[tuple[Path, str, Tensor]]:
    """(file, name, tensor) of every tensor in the folder."""
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.is_file():
        files: dict[Path, set[str] | None] = {single: None}
    elif index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise ArtefactError(f"{index}: lacks 'weight_map'")
        files = {}
        for name, file in weight_map.items():
            if Path(file).name != file:
                raise ArtefactError(f"{index}: {file!r} is not a file name in this folder")
            names = files.setdefault(folder / file, set())
            assert names is not None
            names.add(name)
    else:
        pickled = sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.pt"))
        if pickled:
            raise ArtefactError(
                f"{folder}: only {pickled[0]!r} is there; pickled weights are never read, because reading them runs "
                "code. Convert them to safetensors where you trust them"
            )
        raise ArtefactError(f"{folder}: holds no model.safetensors and no model.safetensors.index.json")
    for path, names in files.items():
        if not path.is_file():
            raise ArtefactError(f"{path}: is named by the index, but is not there")
        try:
            with safe_open(path, framework="pt") as file:
                keys = set(file.keys())
                absent = sorted((names or set()) - keys)
                if absent:
                    raise ArtefactError(f"{path}: lacks tensor {absent[0]!r}, which the index places there")
                for name in sorted(keys):
                    yield path, name, file.get_tensor(name)
        except SafetensorError as error:
            raise ArtefactError(f"{path}: damaged or not safetensors: {error}") from None


def _missing_hint(missing: list[str], config: DecoderConfig) -> str:
    if missing == ["lm_head.weight"]:
        return "; config.json says tie_word_embeddings=false, so the head must be there"
    if all(name.endswith("_proj.bias") for name in missing):
        return f"; {config.architecture} has biases on q, k and v, this checkpoint none"
    return ""
