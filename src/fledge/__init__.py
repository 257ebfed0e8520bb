"""Fledge raises a language model from raw web pages to an aligned, bilingual chat model.

``import fledge`` is light: torch is imported when ``fledge.load`` or ``fledge.Engine`` is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fledge.generate.engine import Engine
    from fledge.generate.loaded import load

__all__ = ["Engine", "__version__", "load"]

_LAZY = {"load": "fledge.generate.loaded", "Engine": "fledge.generate.engine"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("fledge")
        except PackageNotFoundError:  # used from a source tree that is not installed
            return "0+unknown"
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'fledge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
