"""Files plain or packed (.gz, .zst), of any number of members; of a broken one, all that stands before the break."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

# Packed bytes unpacked at a time: few, because a hostile piece may unpack to thousands of times its size.
_PIECE = 1024


def open_packed(path: Path) -> io.BufferedReader:
    """The bytes of a file, unpacked by its name.

    Use ``read1`` or lines: they give what stands before a break first, and then raise `EOFError` where the file was
    cut, `OSError` where it is damaged. ``read(n)`` may raise before.
    """
    raw = Path(path).open("rb")  # noqa: SIM115  (closed by the reader that is returned)
    if path.suffix not in (".gz", ".zst"):
        return raw
    return io.BufferedReader(_Unpacked(raw, path.suffix), 64 << 10)


class _Unpacked(io.RawIOBase):
    def __init__(self, file: io.BufferedReader, suffix: str) -> None:
        self._file, self._gzip = file, suffix == ".gz"
        self._damage: type[Exception] = zlib.error
        if not self._gzip:
            import zstandard

            self._damage = zstandard.ZstdError
        self._member: Any = None  # None between members
        self._begin = 0  # where the member begins in the file
        self._packed = b""  # read from the file, not unpacked yet
        self._ready, self._at = b"", 0  # unpacked, and how much of it is given away
        self._error: Exception | None = None
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        filled = 0
        while filled < len(buffer):
            if self._at < len(self._ready):
                given = self._ready[self._at : self._at + len(buffer) - filled]
                buffer[filled : filled + len(given)] = given
                filled, self._at = filled + len(given), self._at + len(given)
            elif self._ended or self._error is not None:
                break
            else:
                self._ready, self._at = self._unpack(), 0
        if not filled and self._error is not None:
            raise self._error
        return filled

    def close(self) -> None:
        self._file.close()
        super().close()

    def _unpack(self) -> bytes:
        """The next piece, unpacked. A member's end puts what follows it back, to be the next one's first piece."""
        piece = self._packed or self._file.read(_PIECE)
        self._packed = b""
        if not piece:
            self._ended = True
            if self._member is not None:
                self._error = EOFError("the packed file ends before its end mark: it was cut")
            return b""
        if self._member is None:
            if self._gzip and not (piece := piece.lstrip(b"\0")):
                return b""  # gzip's padding
            self._member, self._begin = self._fresh(), self._file.tell() - len(piece)
        try:
            ready: bytes = self._member.decompress(piece)
        except self._damage as error:
            self._error = OSError(f"damaged: {error}")
            return self._before_damage(piece)
        if self._member.eof:
            self._packed, self._member = self._member.unused_data, None
        return ready

    def _before_damage(self, piece: bytes) -> bytes:
        """What ``piece`` holds up to the damage, which unpacking it at once lost: the member again, byte by byte."""
        member = self._fresh()
        left = self._file.tell() - len(piece) - self._begin
        self._file.seek(self._begin)
        while left > 0:
            packed = self._file.read(min(left, _PIECE))
            member.decompress(packed)
            left -= len(packed)
        good = bytearray()
        try:
            for place in range(len(piece)):
                good += member.decompress(piece[place : place + 1])
        except self._damage:
            pass  # already told
        return bytes(good)

    def _fresh(self) -> Any:
        if self._gzip:
            return zlib.decompressobj(wbits=31)
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj()
