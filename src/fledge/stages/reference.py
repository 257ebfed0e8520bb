"""What a reference model says of fixed pairs: computed once, and kept on disk for every run that asks the same.

The file is named by a fingerprint of all that shapes the numbers: the ids that are scored (in which data, tokenizer,
template and length limit show), the weights, the precision, the packing, and the code. Another beta finds it; whatever
else is changed makes another. It lies in ``.reference`` beside the runs and may be removed at any time.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fledge.core.errors import ArtefactError
from fledge.core.progress import progress
from fledge.model.compiled import compiled
from fledge.model.decoder import Decoder
from fledge.model.hf import load_decoder
from fledge.tokenizer.tokenizer import Tokenizer, ids_hash
from fledge.train.batch import Example
from fledge.train.mesh import Mesh
from fledge.train.scoring import reference_logp

Floats = npt.NDArray[np.float32]
FOLDER = ".reference"
_SCORING = ("fledge.model", "fledge.train", "fledge.core")  # packages whose code the numbers come from


def load_reference(folder: Path, model: Path, tokenizer: Tokenizer) -> Decoder:
    """A reference is asked for the policy's ids, so they must mean the same to it."""
    decoder = load_decoder(folder)
    require_same_ids(folder, decoder, model, tokenizer, "reference")
    return decoder


def require_same_ids(folder: Path, decoder: Decoder, model: Path, tokenizer: Tokenizer, what: str) -> None:
    """Raises `ArtefactError` where ``decoder``, read from ``folder``, cannot be given the ids of ``model``."""
    if (folder / "tokenizer.json").exists() and ids_hash(folder) != ids_hash(model):
        raise ArtefactError(f"{folder}: the {what} has another tokenizer than {model}: the same ids mean other text")
    if decoder.config.vocab_size < tokenizer.vocab_size:
        raise ArtefactError(
            f"{folder}: the {what} has {decoder.config.vocab_size} rows, "
            f"but the tokenizer of {model} {tokenizer.vocab_size} ids"
        )


def with_reference(
    pairs: Sequence[Example], reference: Decoder, dtype: torch.dtype, micro_tokens: int, folder: Path, mesh: Mesh
) -> tuple[list[Example], str]:
    """Pairs with the column ``reference``, and the fingerprint under which ``folder`` keeps it. A damaged file is
    told of and made again; one that cannot be written is told of and done without."""
    key = fingerprint(pairs, reference, dtype, micro_tokens, mesh.device)
    path = folder / f"{key}.safetensors"
    flat = _read(path, sum(pair.trained for pair in pairs))
    if flat is None:
        with progress("reference", len(pairs), "pairs") as bar:
            flat = reference_logp(pairs, reference, dtype, micro_tokens, mesh.device, bar.advance)
        if mesh.first:
            _write(path, flat)
    return attach(pairs, "reference", flat), key


def fingerprint(
    pairs: Sequence[Example], reference: Decoder, dtype: torch.dtype, micro_tokens: int, device: str
) -> str:
    """Of everything that the numbers depend on, to the last bit."""
    digest = hashlib.blake2b(digest_size=16)
    facts = (dtype, micro_tokens, device.partition(":")[0], compiled(), torch.__version__, _code())
    digest.update(repr(facts).encode())
    digest.update(reference.config.model_dump_json().encode())
    for name, parameter in reference.named_parameters():
        whole = parameter.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(whole.shape)} {whole.dtype}".encode())
        digest.update(whole.view(-1).view(torch.uint8).numpy().data)
    for pair in pairs:
        for segment in pair.segments:
            digest.update(f"{len(segment.tokens)} {segment.parent}".encode())
            digest.update(segment.tokens.tobytes())
            digest.update((segment.weight != 0).tobytes())
    return digest.hexdigest()


def _code() -> str:
    digest = hashlib.blake2b(digest_size=16)
    for package in _SCORING:
        for item in sorted(resources.files(package).iterdir(), key=lambda item: item.name):
            if item.name.endswith((".py", ".cpp")):
                digest.update(item.name.encode() + b"\0" + item.read_bytes())
    return digest.hexdigest()


def _read(path: Path, count: int) -> Floats | None:
    """The numbers of a file, or None where there is none that is whole."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            flat: Floats = file.get_tensor("logp")
            said = (file.metadata() or {}).get("blake2b")
    except (SafetensorError, OSError) as error:
        reason = str(error)
    else:
        if len(flat) == count and _sum(flat) == said:
            return flat
        reason = "its numbers are not those that were written"
    warnings.warn(f"{path}: damaged ({reason}); what the reference says is computed again", stacklevel=3)
    return None


def _write(path: Path, flat: Floats) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"logp": flat}, temporary, metadata={"blake2b": _sum(flat)})
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        warnings.warn(f"{path}: not kept for other runs: {error}", stacklevel=3)


def _sum(flat: Floats) -> str:
    return hashlib.blake2b(np.ascontiguousarray(flat).tobytes(), digest_size=16).hexdigest()


def attach(examples: Sequence[Example], name: str, flat: npt.NDArray[Any]) -> list[Example]:
    """Put a column of all trained tokens, in order, onto the segments."""
    result, at = [], 0
    for example in examples:
        segments = []
        for segment in example.segments:
            trained = segment.weight != 0
            column = np.zeros(len(segment.tokens), np.float32)
            count = int(trained.sum())
            column[trained] = flat[at : at + count]
            at += count
            segments.append(segment.with_columns(**{name: column}) if count else segment)
        result.append(replace(example, segments=tuple(segments)))
    if at != len(flat):
        raise ValueError(f"{len(flat)} values for {at} trained tokens")
    return result
