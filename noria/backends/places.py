"""Where a package of files can be sent and fetched: a folder, a bucket, a hub. None of them is asked unasked."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from noria import buckets
from noria.errors import Conflict, NotFound
from noria.settings import RegistrySettings

HUB = "hf://"
LAST = "noria.json"
"""The file that is sent last: where it lies all others do."""
_HINT = "check the address, the credentials in the environment and [registry] storage"


class Place(Protocol):
    """One package's place. Names of files are relative, with '/' between their parts."""

    def files(self) -> dict[str, str | None]:
        """Names of the files there with their SHA-256 where the place tells it; raises NotFound, Unavailable."""

    def fetch(self, names: Iterable[str], into: Path) -> None:
        """Write these files into a folder."""

    def send(self, folder: Path, message: str) -> str:
        """Send a folder's files; returns the address by which exactly they can be fetched."""

    @property
    def address(self) -> str:
        """Where `files` were found, as exactly as the place can say it."""


def open_place(address: str, settings: RegistrySettings, root: Path) -> Place:
    """The place at an address: `hf://OWNER/NAME[@REVISION]`, a bucket's URL, or a folder from `root` on."""
    if address.startswith(HUB):
        from noria.backends.hub import HubPlace

        return HubPlace(address, settings)
    if "://" in address:
        return BucketPlace(address, settings.storage)
    return FolderPlace(root / address)


class FolderPlace:
    """A folder, which holds one package and nothing else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def address(self) -> str:
        """The folder."""
        return str(self._folder)

    def files(self) -> dict[str, str | None]:
        """Every file in the folder, however deep."""
        if not self._folder.is_dir():
            raise NotFound(f"there is no folder '{self._folder}'", "name the folder of a package")
        found = (path for path in sorted(self._folder.rglob("*")) if path.is_file())
        return {path.relative_to(self._folder).as_posix(): None for path in found}

    def fetch(self, names: Iterable[str], into: Path) -> None:
        """Copy these files; what a link points to is copied, wherever it lies."""
        for name in names:
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._folder / name, into / name)

    def send(self, folder: Path, message: str) -> str:
        """Put the package in place of an earlier one, whole; raises Conflict for a folder that holds other things."""
        if self._folder.exists() and any(self._folder.iterdir()) and not (self._folder / LAST).is_file():
            raise Conflict(f"'{self._folder}' holds other things", "name a folder of its own")
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        fresh, old = (self._folder.with_name(f".{self._folder.name}.{word}") for word in ("new", "old"))
        for left in (fresh, old):
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(folder, fresh)
        if self._folder.exists():
            self._folder.rename(old)
        fresh.rename(self._folder)
        shutil.rmtree(old, ignore_errors=True)
        return self.address


class BucketPlace:
    """A prefix in an object store, by fsspec."""

    def __init__(self, address: str, options: Mapping[str, str | int | bool]) -> None:
        self.address = address.rstrip("/")
        self._system = buckets.opened(address.partition("://")[0], options, _HINT)
        self._prefix = str(self._system._strip_protocol(self.address))

    def files(self) -> dict[str, str | None]:
        """Every object below the prefix."""
        with self._told():
            self._system.invalidate_cache()
            found = self._system.find(self._prefix) if self._system.exists(self._prefix) else []
        if not found:
            raise NotFound(f"nothing lies at '{self.address}'", _HINT)
        return {str(path)[len(self._prefix) :].lstrip("/"): None for path in found}

    def fetch(self, names: Iterable[str], into: Path) -> None:
        """Download these objects."""
        for name in names:
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            with self._told():
                self._system.get_file(f"{self._prefix}/{name}", str(into / name))

    def send(self, folder: Path, message: str) -> str:
        """Upload all, the manifest last; meanwhile there is none, so that nobody fetches half a package."""
        names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        with self._told():
            if self._system.exists(f"{self._prefix}/{LAST}"):
                self._system.rm(f"{self._prefix}/{LAST}")
            for name in sorted(names, key=lambda each: each == LAST):
                self._system.put_file(str(folder / name), f"{self._prefix}/{name}")
        return self.address

    def _told(self) -> AbstractContextManager[None]:
        return buckets.told(self.address, "cannot be reached", _HINT)
