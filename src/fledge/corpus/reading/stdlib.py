"""The interpreter's own standard library as text: real English and code that every machine has.

Modules are parsed with `ast` and never imported. Each gives pages of documentation (its documentation strings with
the signatures they belong to) and pages of source, cut between top-level definitions.
"""

from __future__ import annotations

import ast
import hashlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from fledge.corpus.pages import Found, Refused

_SKIPPED = {
    "test", "tests", "idlelib", "idle_test", "encodings", "site-packages", "dist-packages", "__pycache__",
    "turtledemo", "ensurepip", "lib2to3", "__phello__",
}  # fmt: skip
_LONGEST_FILE = 150_000  # characters; longer modules are mostly tables
_PAGE = 6_000  # characters of a page, as far as definitions allow
_TOPICS = "pydoc_data/topics.py"  # the language reference, as a table of texts


def stdlib_root() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def stdlib_files(max_characters: int) -> list[tuple[str, Path]]:
    """Names and paths of the modules to read, until their sizes add up to ``max_characters``.

    The reference topics come first, then modules in the order of a hash of their names: a smaller cap is a fair
    sample of a larger one, not the letters from A to C.
    """
    root = stdlib_root()
    names = []
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        if not _SKIPPED.intersection(relative.parts) and not relative.name.startswith(("_sysconfigdata", "test_")):
            names.append(relative.as_posix())
    names.sort(key=lambda name: (name != _TOPICS, hashlib.blake2b(name.encode(), digest_size=8).digest()))
    chosen: list[tuple[str, Path]] = []
    total = 0
    for name in names:
        size = (root / name).stat().st_size
        if size == 0 or (size > _LONGEST_FILE and name != _TOPICS):
            continue
        if total + size > max_characters:
            if chosen:
                break
            continue  # the reference alone is larger than a small cap
        total += size
        chosen.append((name, root / name))
    return chosen


def read_stdlib(label: str, path: Path) -> Iterator[Found | Refused]:
    """Pages of one module. ``offset`` is the line where the page begins (documentation: minus one minus it)."""
    try:
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError) as error:
        yield Refused(label, 0, "source", f"{path}: cannot be parsed: {error}", error=True)
        return
    if label.endswith(_TOPICS):
        yield from _topics(label, tree)
        return
    name = label.partition("/")[2].removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    for number, text in enumerate(_documentation(name, tree)):
        yield Found(label, -1 - number, "text", text, url=f"{label}#documentation", meta={"title": name})
    for line, text in _chunks(source, tree):
        yield Found(label, line, "code", text, url=label, meta={"title": name})


def _topics(label: str, tree: ast.Module) -> Iterator[Found]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if not isinstance(key, ast.Constant) or not isinstance(value, ast.Constant):
                    continue
                if isinstance(key.value, str) and isinstance(value.value, str):
                    url, meta = f"{label}#{key.value}", {"title": key.value}
                    yield Found(label, value.lineno, "text", value.value.strip(), url=url, meta=meta)


def _documentation(name: str, tree: ast.Module) -> Iterator[str]:
    """The module's documentation as pages: its own text, then signatures with theirs."""
    page = [name]
    size = 0
    opening = ast.get_docstring(tree)
    if opening:
        page.append(opening)
        size += len(opening)
    for signature, text in _documented(tree.body, ""):
        if size and size + len(text) > _PAGE:
            yield "\n\n".join(page)
            page, size = [name], 0
        page.append(f"{signature}\n{text}")
        size += len(text)
    if size:
        yield "\n\n".join(page)


def _documented(body: list[ast.stmt], owner: str) -> Iterator[tuple[str, str]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            text = ast.get_docstring(node)
            if text:
                yield f"class {owner}{node.name}", text
            yield from _documented(node.body, f"{owner}{node.name}.")
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield f"{owner}{node.name}({ast.unparse(node.args)})", text


def _chunks(source: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The source cut between top-level statements into pages of about ``_PAGE`` characters: (line, text)."""
    lines = source.splitlines(keepends=True)
    starts = [1]
    for node in tree.body:
        decorators = getattr(node, "decorator_list", [])
        starts.append(min([node.lineno, *(item.lineno for item in decorators)]))
    starts = sorted(set(starts))
    begin, size = 1, 0
    for start, end in zip(starts, [*starts[1:], len(lines) + 1], strict=True):
        length = sum(len(line) for line in lines[start - 1 : end - 1])
        if size and size + length > _PAGE:
            yield begin, "".join(lines[begin - 1 : start - 1]).strip("\n") + "\n"
            begin, size = start, 0
        size += length
    if size:
        yield begin, "".join(lines[begin - 1 :]).strip("\n") + "\n"
