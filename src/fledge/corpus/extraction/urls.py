"""Lists of addresses whose pages are not wanted: hosts and prefixes, the user's own. None is shipped.

A line of a list is a host, or a host and the beginning of a path; a scheme in front is passed over, so that lists of
either kind work, and what follows a ``#`` at the beginning of a line or after a blank is a remark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import xxhash
from pydantic import Field

from fledge.core.config import Config
from fledge.core.errors import ConfigError
from fledge.corpus.reading.lines import read_lines

VERSION = 1
_LONGEST_LINE = 1 << 16
_REMARK = re.compile(r"(^|\s)#.*")
_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_HOSTS_FILE = re.compile(r"^(?:0\.0\.0\.0|127\.0\.0\.1|::1?)\s+")  # what lists for /etc/hosts begin their lines with


class UrlsConfig(Config):
    """Which addresses are left out."""

    block: tuple[Path, ...] = Field((), description="files of hosts or prefixes, a line each; .gz and .zst as well")


class BlockList:
    """Hosts and prefixes of some files. A host stands for its subdomains, a prefix for whole parts of a path.

    Millions of entries are kept as 64-bit hashes: 8 bytes each, where Python's strings would take about 100.
    """

    def __init__(self, files: tuple[Path, ...]) -> None:
        hashes = [_hash(key) for path in files for key in read_list(path)]
        self._known = np.unique(np.array(hashes, dtype=np.uint64))

    def __len__(self) -> int:
        return len(self._known)

    def find(self, url: str) -> str:
        """The entry that an address falls under, or nothing; hosts come before prefixes, the shorter first."""
        if not len(self._known):
            return ""
        return next((key for key in _candidates(url) if self._has(key)), "")

    def _has(self, key: str) -> bool:
        value = np.uint64(_hash(key))
        place = int(np.searchsorted(self._known, value))
        return place < len(self._known) and bool(self._known[place] == value)


def read_list(path: Path) -> Iterator[str]:
    """The entries of a file in their normal form. Raises `ConfigError` where a line is no host and no prefix."""
    try:
        for line in read_lines(Path(path).expanduser(), _LONGEST_LINE):
            if line.problem or line.data is None:
                raise ConfigError(f"urls.block: {path}:{line.number}: {line.problem or 'a line too long'}")
            text = _REMARK.sub("", line.data.decode("utf-8", "replace")).strip()
            text = _HOSTS_FILE.sub("", text)
            if not text:
                continue
            host, parts = _split(text if _SCHEME.match(text) else f"http://{text}")
            if not host or " " in text:
                raise ConfigError(f"urls.block: {path}:{line.number}: {text[:80]!r} is no host and no prefix")
            yield "/".join([host, *parts])
    except OSError as error:
        raise ConfigError(f"urls.block: {path}: cannot be read: {error}") from None


def _candidates(url: str) -> Iterator[str]:
    host, parts = _split(url)
    if not host:
        return
    labels = host.split(".")
    hosts = [".".join(labels[place:]) for place in range(len(labels))]
    yield from reversed(hosts)
    for length in range(1, len(parts) + 1):
        for name in hosts:
            yield "/".join([name, *parts[:length]])


def _split(url: str) -> tuple[str, list[str]]:
    """(host, parts of the path) in one spelling: lower case and Punycode; escapes read, empty parts left out."""
    try:
        split = urlsplit(url.strip())
        host = (split.hostname or "").rstrip(".")
    except ValueError:
        return "", []
    return _ascii(host.removeprefix("*.")), [unquote(part) for part in split.path.split("/") if part]


@lru_cache(maxsize=4096)
def _ascii(host: str) -> str:
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


def _hash(key: str) -> int:
    return xxhash.xxh3_64_intdigest(key.encode("utf-8", "surrogatepass"))
