"""How a scorer that was trained here lies in its folder: ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fledge.core.artefact import write_json
from fledge.core.errors import ArtefactError

CONFIG, WEIGHTS = "config.json", "model.safetensors"
Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Format:
    """``kind`` and ``version`` stand in config.json; ``name`` and ``door`` in messages. What is hashed otherwise, or
    lies otherwise, is another version."""

    kind: str
    version: int
    name: str
    door: str

    def save(self, folder: Path, values: Mapping[str, Any], tensors: Tensors) -> None:
        from safetensors.numpy import save_file

        save_file(tensors, folder / WEIGHTS)
        write_json(folder / CONFIG, {"kind": self.kind, "version": self.version, **values})

    @contextmanager
    def load(self, folder: Path) -> Iterator[tuple[dict[str, Any], Tensors]]:
        """Values and tensors. Raises `ArtefactError` for a folder that is missing, damaged or something else, and for
        values or tensors that the block in which they are used misses or cannot take."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            if values.get("kind") != self.kind or values.get("version") != self.version:
                raise ArtefactError(
                    f"{folder}: is no {self.name} of version {self.version}; make one with `{self.door}`"
                )
            yield values, load_file(folder / WEIGHTS)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise ArtefactError(f"{folder}: cannot be read as a {self.name}: {error}") from None
