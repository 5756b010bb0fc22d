"""The lake on a plain folder: artifacts as folders, named by their content."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from noria import formats
from noria.adapters import FORGOTTEN, TEXTS
from noria.backends.scratch import alone, claim, sweep
from noria.errors import Conflict, Invalid, NotFound, Unavailable
from noria.types import Ref

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}")
_CHUNK = 1 << 20
_BESIDE = (FORGOTTEN, *(f".{name}.new" for name in (FORGOTTEN, *TEXTS)))
"""Files that are no part of an artifact's content: what forgetting writes, and the beginnings of it."""
_LOADED = frozenset({"adapter"})
"""Kinds of artifacts that engines load: of these every file's own digest is kept, to name one that was changed."""


class FolderLake:
    """Port `Lake` on one folder: `root/KIND/NAME/DIGEST` for artifacts, `root/.scratch` for what is being made.

    Scratch and artifacts lie on one file system, so that `commit` is a single rename: an artifact is there as a
    whole or not at all, also after a kill. A scratch folder is claimed by the process that asked for it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._claims: dict[Path, int] = {}
        self._seen: dict[Ref, tuple[object, ...]] = {}

    def scratch(self, key: str) -> Path:
        """An empty folder to write in; what killed runs left in this one and in all others is gone.

        Raises Conflict where another living process writes under this key.
        """
        folder = self.root / ".scratch" / _checked("scratch key", key)
        folder.parent.mkdir(parents=True, exist_ok=True)
        for claimed in [each for each in self._claims if each == folder or not each.is_dir()]:
            os.close(self._claims.pop(claimed))
        with alone(folder.parent):
            sweep(folder.parent, "*")
            try:
                folder.mkdir()
            except FileExistsError:
                raise Conflict(f"another process writes '{key}' now", "wait for it, or look: noria status") from None
            self._claims[folder] = claim(folder)
        return folder

    def commit(self, folder: Path, kind: str, name: str) -> Ref:
        """Move a finished scratch folder to its place, atomically; the same content twice is one artifact.

        Raises Invalid for a kind or a name that cannot be a folder's name, and for a product that holds links;
        Unavailable when the folder cannot be moved.
        """
        _checked("kind", kind)
        _checked("name", name)
        ref = Ref(kind=kind, name=name, digest=content_digest(folder))
        place = self._place(ref)
        place.parent.mkdir(parents=True, exist_ok=True)
        if kind in _LOADED:
            self._note(ref, folder)
        if not place.exists():
            # Another process may commit the same content in between: then its folder is as good as ours.
            with contextlib.suppress(OSError):
                folder.rename(place)
        if not place.is_dir():
            raise Unavailable(f"'{ref}' could not be moved to '{place}'", "check the folder's owner and free space")
        shutil.rmtree(folder, ignore_errors=True)
        return ref

    def path(self, ref: Ref) -> Path:
        """Folder of an artifact; raises NotFound."""
        place = self._place(ref)
        if not place.is_dir():
            raise NotFound(f"'{ref}' is not in the lake '{self.root}'", "run the stage that makes it: noria run")
        return place

    def verified(self, ref: Ref) -> Path:
        """Folder of an artifact, after its content was found to be what its name says.

        What this process has verified is read again only when a file's size or time has changed. In what is marked
        as forgotten the files that hold training rows may have been changed. Raises NotFound, Invalid naming the
        files that are not as they were committed, Unavailable for files that come and go or cannot be read.
        """
        folder = self.path(ref)
        try:
            stamp = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in _content(folder))
            if self._seen.get(ref) != stamp:
                self._verify(ref, folder)
                self._seen[ref] = stamp
        except OSError as error:
            raise Unavailable(f"'{ref}' cannot be read: {error}", f"look at '{folder}'") from error
        return folder

    def _verify(self, ref: Ref, folder: Path) -> None:
        sums = self._sums(ref)
        if content_digest(folder, besides=_BESIDE) == ref.digest:
            if ref.kind in _LOADED and not sums.is_file():
                self._note(ref, folder)
            return
        if (folder / FORGOTTEN).is_file() and sums.is_file():
            was, now = json.loads(sums.read_text()), _digests(folder)
            if all(was.get(name) == now.get(name) for name in (was.keys() | now.keys()) - {*TEXTS}):
                return
        raise Invalid(
            f"'{ref}' is not what was made: {self._changed(ref, folder)}",
            f"put it back from a copy, or remove '{folder}' and run the stage again",
        )

    def has(self, ref: Ref) -> bool:
        """Whether the artifact is there."""
        return self._place(ref).is_dir()

    def _sums(self, ref: Ref) -> Path:
        return self.root / ".sums" / ref.kind / ref.name / f"{ref.digest}.json"

    def _note(self, ref: Ref, folder: Path) -> None:
        """Keep the digest of every file, beside the lake's artifacts: in the folder it would change its content."""
        file = self._sums(ref)
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f".{file.name}.{os.getpid()}")
        fresh.write_text(json.dumps(_digests(folder)) + "\n")
        fresh.replace(file)

    def _changed(self, ref: Ref, folder: Path) -> str:
        """Which files differ from those that were committed, as far as that was kept."""
        file = self._sums(ref)
        if not file.is_file():
            return "its content has another digest"
        was, now = json.loads(file.read_text()), _digests(folder)
        told = [f"'{name}' was changed" for name in sorted(was.keys() & now.keys()) if was[name] != now[name]]
        told += [f"'{name}' is gone" for name in sorted(was.keys() - now.keys())]
        return ", ".join([*told, *(f"'{name}' was added" for name in sorted(now.keys() - was.keys()))])

    def _place(self, ref: Ref) -> Path:
        return self.root / _checked("kind", ref.kind) / _checked("name", ref.name) / ref.digest


def content_digest(folder: Path, besides: Collection[str] = ()) -> str:
    """First 16 hexadecimal characters of the SHA-256 over sorted relative paths, sizes and contents.

    Empty folders do not count, nor do the files `besides`. Raises Invalid for symbolic links: what they point to
    could change later.
    """
    sha = hashlib.sha256()
    for path in sorted(_files(folder), key=lambda path: path.relative_to(folder).as_posix()):
        if path.relative_to(folder).as_posix() in besides:
            continue
        name = path.relative_to(folder).as_posix().encode()
        sha.update(b"%d:%s%d:" % (len(name), name, path.stat().st_size))
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                sha.update(chunk)
    return sha.hexdigest()[:16]


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise Invalid(f"'{path.name}' in a product is a link", "write the file itself")
        if path.is_file():
            yield path


def _content(folder: Path) -> list[Path]:
    return sorted(path for path in _files(folder) if path.relative_to(folder).as_posix() not in _BESIDE)


def _digests(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): formats.sha256(path) for path in _content(folder)}


def _checked(what: str, text: str) -> str:
    if not _NAME.fullmatch(text):
        raise Invalid(f"{what} '{text}' cannot name a folder", "use letters, digits, '-' and '_'")
    return text
