"""Files in a ZIP archive, read within limits."""

from __future__ import annotations

import io
import zipfile
import zlib

MOST_FILES = 100_000
MOST_BYTES = 1 << 30
MOST_RATIO = 200
"""A file may unpack to at most this many times its size, once it is larger than SMALL."""
SMALL = 1 << 20

ZIP = b"PK\x03\x04"


class Unreadable(Exception):
    """An archive that is broken, encrypted or too large; the text says which."""


class Archive:
    """A ZIP archive in memory; raises Unreadable for one that is none or would unpack to too much."""

    def __init__(self, data: bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, EOFError) as error:
            raise Unreadable(f"not a valid ZIP archive: {error}") from error
        files = self._zip.infolist()
        if len(files) > MOST_FILES:
            raise Unreadable(f"the archive holds {len(files)} files, more than {MOST_FILES}")
        # What is read is cut at the size that the directory states, so that a wrong statement costs nothing.
        if sum(file.file_size for file in files) > MOST_BYTES:
            raise Unreadable(f"the archive unpacks to more than {MOST_BYTES >> 20} MiB")
        for file in files:
            if file.file_size > max(SMALL, MOST_RATIO * file.compress_size):
                raise Unreadable(f"'{file.filename}' unpacks to more than {MOST_RATIO} times its size")
        self.names = [file.filename for file in files if not file.is_dir()]

    def read(self, name: str) -> bytes:
        """One file's bytes; raises Unreadable where they are damaged or encrypted."""
        try:
            return self._zip.read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError) as error:
            raise Unreadable(f"'{name}' in the archive is damaged: {error}") from error
        except (RuntimeError, NotImplementedError) as error:
            raise Unreadable(f"'{name}' in the archive cannot be unpacked: {error}") from error
