"""Writes WARC/1.1 files, one gzip member a record (ISO 28500:2017)."""

from __future__ import annotations

import base64
import hashlib
import uuid
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

_START = datetime(2024, 3, 1, tzinfo=UTC)


class WarcWriter:
    """Appends records to one file. Dates and record ids follow from the order and the seed, not from the clock."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path, self.seed, self.count = path, seed, 0
        self.file = path.open("wb")

    def __enter__(self) -> WarcWriter:
        info = b"software: fledge microworld\r\nformat: WARC File Format 1.1\r\nrobots: obey\r\n"
        self._write("warcinfo", info, {"Content-Type": "application/warc-fields", "WARC-Filename": self.path.name})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def response(self, url: str, content_type: str, body: bytes, status: str = "200 OK") -> None:
        """One HTTP response as the crawler received it."""
        headers = (
            f"HTTP/1.1 {status}\r\nServer: littleserver/1.{self.count % 7}\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self._write(
            "response", headers.encode("ascii") + body,
            {
                "WARC-Target-URI": url, "Content-Type": "application/http; msgtype=response",
                "WARC-Payload-Digest": _digest(body), "WARC-IP-Address": f"192.0.2.{self.count % 250 + 1}",
            },
        )  # fmt: skip

    def _write(self, kind: str, block: bytes, fields: dict[str, str]) -> None:
        identity = uuid.UUID(
            bytes=hashlib.md5(f"{self.seed}/{self.path.name}/{self.count}".encode()).digest(), version=4
        )
        date = (_START + timedelta(seconds=7 * self.count)).strftime("%Y-%m-%dT%H:%M:%SZ")
        lines = {
            "WARC-Type": kind, "WARC-Record-ID": f"<urn:uuid:{identity}>", "WARC-Date": date, **fields,
            "WARC-Block-Digest": _digest(block), "Content-Length": str(len(block)),
        }  # fmt: skip
        head = "WARC/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n"
        packer = zlib.compressobj(6, zlib.DEFLATED, 31)
        self.file.write(packer.compress(head.encode("utf-8") + block + b"\r\n\r\n") + packer.flush())
        self.count += 1


def _digest(data: bytes) -> str:
    return "sha1:" + base64.b32encode(hashlib.sha1(data).digest()).decode("ascii")
