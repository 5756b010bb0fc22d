"""Bytes of one file, unpacked and cut where it is large, and no more of them than its limits allow."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, cast

from noria.lake.encoding import Recoder
from noria.lake.rows import Fault
from noria.lake.traits import ONE_ROW_A_PIECE, SEAMS

FREE = 16 << 20
"""Bytes that a file may unpack to, and characters that its rows may take, whatever its size."""
PIECE = 8 << 20
"""Bytes of a piece of a large file."""
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"


@dataclass(frozen=True, slots=True)
class Limits:
    """What `noria.settings.FileLimits` says, without the weight of it."""

    file_mb: float
    row_chars: int
    seconds: float
    memory_mb: int
    ratio: float

    @property
    def bytes(self) -> int:
        """Most bytes of a file."""
        return int(self.file_mb * (1 << 20))


class TooMuch(Exception):
    """The file goes beyond a limit; `offset` is None where it is that of the last row."""

    def __init__(self, reason: str, offset: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.offset = reason, offset


class Input:
    """A file being read: digested as it lies there, given as it is when unpacked. Gzip is told by its first bytes."""

    def __init__(self, path: str, kind: str, limits: Limits) -> None:
        self.kind, self.limits = kind, limits
        self.unpacked = 0
        """Bytes that were given so far."""
        self._sha = hashlib.sha256()
        # Neither a link that was put there since nor a pipe, on which opening would wait for ever.
        self._fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        found = os.fstat(self._fd)
        self.size, self._regular = found.st_size, stat.S_ISREG(found.st_mode)

    def __enter__(self) -> Input:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def read(self, size: int = -1) -> bytes:
        """The next bytes of the file as it lies there, `size` at most."""
        data = os.read(self._fd, size if size >= 0 else self.size + 1)
        self._sha.update(data)
        return data

    def digest(self) -> str:
        """SHA-256 of the whole file, as it lies there."""
        while self.read(PIECE):
            pass
        return self._sha.hexdigest()

    def pieces(self, recoder: Recoder) -> Iterator[tuple[int, bytes | Fault]]:
        """The unpacked file, cut at its kind's seams, each piece with its offset; an overlong row comes as a Fault.

        Raises TooMuch when it is too large, unpacks to too much or cannot be unpacked.
        """
        if not self._regular:
            raise TooMuch("it is not a regular file", 0)
        if self.size > self.limits.bytes:
            raise TooMuch(too_large(self.size, self.limits.file_mb), 0)
        packed = os.pread(self._fd, 2, 0) == _GZIP
        chunks = self._unpacked() if packed else iter(lambda: self._counted(self.read(PIECE)), b"")
        try:
            first = next(chunks, b"")
            recoder.start(first)
            seams = () if recoder.whole else SEAMS.get(self.kind, ())
            if seams:
                yield from self._cut(first, chunks, seams)
            elif packed or len(first) == self.size:
                yield 0, self._whole([first, *chunks])
            else:
                # In one go: a list of chunks would take the memory twice.
                os.lseek(self._fd, 0, os.SEEK_SET)
                self._sha, self.unpacked = hashlib.sha256(), 0
                yield 0, self._whole([self._counted(self.read()), *iter(lambda: self._counted(self.read(PIECE)), b"")])
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise TooMuch(f"it cannot be unpacked: {error}", self.unpacked) from error

    def _counted(self, chunk: bytes) -> bytes:
        self.unpacked += len(chunk)
        if self.unpacked > self.limits.bytes:
            raise TooMuch(f"it unpacks to more than file_mb = {self.limits.file_mb:g} MiB", 0)
        return chunk

    def _unpacked(self) -> Iterator[bytes]:
        stream = gzip.GzipFile(mode="rb", fileobj=cast(BinaryIO, self))
        while chunk := self._counted(stream.read(PIECE >> 3)):
            self._check(self.unpacked)
            yield chunk

    def _check(self, unpacked: int) -> None:
        if unpacked > FREE and unpacked > self.limits.ratio * self.size:
            raise TooMuch(f"it unpacks to more than ratio = {self.limits.ratio:g} times its size", 0)

    def _whole(self, chunks: Sequence[bytes]) -> bytes:
        data = b"".join(chunks) if len(chunks) > 1 else chunks[0]
        if data.startswith(_ZIP):
            try:
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    inside = sum(entry.file_size for entry in archive.infolist())
            except (zipfile.BadZipFile, ValueError):
                return data  # The reader of its kind says what is wrong with it.
            self._check(inside)
            if inside > self.limits.bytes:
                raise TooMuch(f"it unpacks to more than file_mb = {self.limits.file_mb:g} MiB", 0)
        return data

    def _cut(
        self, first: bytes, chunks: Iterator[bytes], seams: tuple[bytes, ...]
    ) -> Iterator[tuple[int, bytes | Fault]]:
        most = self.limits.row_chars
        longest = max(8 * most, 1 << 16) if self.kind in ONE_ROW_A_PIECE else self.limits.bytes
        held, base, lost = bytearray(first), 0, False
        for chunk in chunks:
            held += chunk
            if lost:
                end = held.find(seams[0]) + 1 or len(held)
                lost = end == len(held) and held[-1:] != seams[0]
                base += end
                del held[:end]
            at = max(held.rfind(seam) + len(seam) if seam in held else 0 for seam in seams)
            if at:
                yield base, bytes(held[:at])
                base += at
                del held[:at]
            if len(held) > longest:
                yield base, Fault(base, f"the row has more than row_chars = {most} characters")
                lost = True
                base += len(held)
                held.clear()
        if held and not lost:
            yield base, bytes(held)


class Offsets:
    """Offsets in the file of places in the UTF-8 text that was made of it; asked for in rising order."""

    def __init__(self, base: int, text: bytes, encoding: str) -> None:
        self._text, self._encoding = text, encoding
        self._at, self._there = 0, base

    def of(self, offset: int) -> int:
        """Offset in the file of the byte `offset` of the text."""
        if not self._encoding:
            return self._there + offset
        if offset > self._at:
            part = self._text[self._at : offset].decode("utf-8", "replace")
            self._there += len(part.encode(self._encoding, "replace"))
            self._at = offset
        return self._there


def too_large(size: int, file_mb: float) -> str:
    """Why a file of `size` bytes is not read."""
    return f"it has {size / (1 << 20):,.1f} MiB, more than file_mb = {file_mb:g}"
