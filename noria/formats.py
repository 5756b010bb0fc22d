"""Files that may come with an adapter: weights in formats that cannot run code when they are read, and plain data.

A pickle runs what its writer wants (https://docs.python.org/3/library/pickle.html), so none is taken, whatever it is
called: the name of a file decides whether it may come at all, its first bytes whether it is what its name says.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from noria.errors import Invalid

WEIGHTS = frozenset({".safetensors", ".gguf"})
DATA = frozenset(
    {".json", ".jsonl", ".txt", ".md", ".csv", ".parquet", ".png", ".svg", ".html", ".jinja", ".model", ".vocab"}
)
"""`.model` is a tokenizer's (sentencepiece); its content is looked at like that of all others."""
_PLAIN = frozenset({".gitattributes", "LICENSE", "NOTICE"})
_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".keras"})
_HINT = "noria takes weights as .safetensors and .gguf only; convert them where they are trusted"
_LONGEST_HEADER = 100 * 1000 * 1000
"""Bytes of the header of a safetensors file (its own limit)."""
_CHUNK = 1 << 20


def check_names(names: Iterable[str]) -> None:
    """Raise Invalid for a file that may hold code, and for a name that leads out of its folder."""
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or not path.name:
            raise Invalid(f"the file '{name}' would lie outside of its folder", "take it from somebody else")
        suffix = path.suffix.lower()
        if suffix in _PICKLES:
            raise Invalid(f"'{name}' may hold a pickle, which runs code when it is read", _HINT)
        if suffix not in WEIGHTS | DATA and path.name not in _PLAIN:
            raise Invalid(f"'{name}' is of a kind that does not belong to an adapter", _HINT)


def chosen(names: Iterable[str]) -> list[str]:
    """Those of a stranger's files that an adapter may need; raises Invalid where one of them may hold code."""
    found = sorted(names)
    check_names(name for name in found if PurePosixPath(name).suffix.lower() in _PICKLES)
    return [name for name in found if PurePosixPath(name).suffix.lower() in WEIGHTS | DATA]


def check_folder(folder: Path) -> None:
    """Raise Invalid for a file in this folder that may hold code or is not what its name says."""
    files = [*files_of(folder)]
    check_names(file.relative_to(folder).as_posix() for file in files)
    for file in files:
        name = file.relative_to(folder).as_posix()
        with file.open("rb") as stream:
            if fault := _fault(file.suffix.lower(), stream, file.stat().st_size):
                raise Invalid(f"'{name}' {fault}", _HINT)


def files_of(folder: Path) -> Iterator[Path]:
    """The files of a folder, deep, in the order of their names; raises Invalid for links."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise Invalid(f"'{path.name}' is a link", "give the file itself")
        if path.is_file():
            yield path


def sha256(file: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def gguf_text(file: Path, wanted: str) -> str | None:
    """A text in the head of a GGUF file (version 2 or 3), such as `general.license`; None where there is none."""
    try:
        with file.open("rb") as stream:
            found = next((value for key, value in GgufReader(stream).pairs() if key == wanted), None)
    except (OSError, ValueError, MemoryError):
        return None
    return found if isinstance(found, str) else None


def _fault(suffix: str, stream: BinaryIO, size: int) -> str:
    """What is wrong with a file of this suffix; empty where nothing is."""
    head = stream.read(8)
    if suffix == ".safetensors":
        return _fault_of_safetensors(head, stream, size)
    if suffix == ".gguf":
        return "" if head[:4] == b"GGUF" else "is no GGUF file"
    if head[:2] == b"PK" or (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05" and len(head) > 1):
        return "holds a pickle or an archive, which may run code when it is read"
    return ""


def _fault_of_safetensors(head: bytes, stream: BinaryIO, size: int) -> str:
    """By the format's own rules: https://github.com/huggingface/safetensors#format."""
    length = int.from_bytes(head, "little")
    if len(head) < 8 or not 2 <= length <= min(_LONGEST_HEADER, size - 8):
        return "is no safetensors file"
    try:
        told = json.loads(stream.read(length))
        ends = [int(each["data_offsets"][1]) for name, each in told.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        return "is no safetensors file"
    return "" if 8 + length + max(ends, default=0) == size else "is a safetensors file that was cut or added to"


class GgufReader:
    """Reads the metadata of a GGUF file, version 2 or 3, little-endian; ValueError for anything else.

    The layout is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. `tensors` says how many tensors
    are described after the metadata.
    """

    _SCALARS: Final = dict(enumerate(("<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?", "", "", "<Q", "<q", "<d")))
    _TEXT, _ARRAY = 8, 9

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        if (magic := self._take(4)) != b"GGUF":
            raise ValueError(f"it begins with {magic!r}")
        if (version := self.number("<I")) not in (2, 3):
            raise ValueError(f"its version is {version}, known are 2 and 3")
        self.tensors, self._pairs = self.number("<Q"), self.number("<Q")

    def pairs(self) -> Iterator[tuple[str, str | float | bool | None]]:
        """Keys and values in the order of the file; None for an array, which is passed over."""
        for _ in range(self._pairs):
            yield self.text(), self._value(self.number("<I"))

    def number(self, form: str) -> int:
        """The next whole number, by its form in `struct`'s words."""
        return int(self._scalar(form))

    def text(self) -> str:
        """The next text."""
        return self._take(self.number("<Q")).decode(errors="replace")

    def _value(self, kind: int) -> str | float | bool | None:
        if kind == self._TEXT:
            return self.text()
        if kind == self._ARRAY:
            self._pass_array()
            return None
        return self._scalar(self._form(kind))

    def _scalar(self, form: str) -> float | bool:
        found: float | bool = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return found

    def _pass_array(self) -> None:
        kind, count = self.number("<I"), self.number("<Q")
        if kind not in (self._TEXT, self._ARRAY):
            self._take(struct.calcsize(self._form(kind)) * count)
            return
        for _ in range(count):
            self._value(kind)

    def _form(self, kind: int) -> str:
        form = self._SCALARS.get(kind)
        if not form:
            raise ValueError(f"it has a value of unknown type {kind}")
        return form

    def _take(self, count: int) -> bytes:
        # A wrong length must not make Python reserve that much memory.
        if count > self._size - self._file.tell():
            raise ValueError("it ends inside its header")
        return self._file.read(count)
