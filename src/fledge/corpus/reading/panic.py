"""Parsers written in Rust fail in a way that ``except Exception`` does not see."""

from __future__ import annotations


def is_panic(error: BaseException) -> bool:
    """Whether this is a panic of a library made with pyo3: a `BaseException` of a type that cannot be imported."""
    return type(error).__name__ == "PanicException" and type(error).__module__ == "pyo3_runtime"
