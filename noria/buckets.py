"""Object stores by fsspec: which extra brings a driver, how one is opened, and what drivers raise as our errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from noria.errors import Invalid, NotFound, Unavailable

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

EXTRAS = {"s3": "s3", "s3a": "s3", "abfs": "azure", "abfss": "azure", "az": "azure"}
"""Protocol to the extra that has its driver."""


def opened(protocol: str, options: Mapping[str, str | int | bool], hint: str, where: str = "") -> AbstractFileSystem:
    """The file system of a protocol; raises Unavailable without its driver, Invalid for one that nobody knows."""
    extra = EXTRAS.get(protocol, "s3")
    try:
        import fsspec

        return fsspec.filesystem(protocol, **options)
    except ImportError as error:
        raise Unavailable(
            f"no driver for '{protocol}://' is installed: {error}", f"pip install 'noria[{extra}]'", where=where
        ) from error
    except ValueError as error:
        raise Invalid(f"'{protocol}://' is no known kind of store: {error}", hint, where=where) from error


@contextmanager
def told(address: str, fault: str, hint: str, where: str = "") -> Iterator[None]:
    """Errors of a store, each in its own words, as NotFound and Unavailable; `fault` is such as `cannot be read`."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"'{address}' is not there: {error}", hint, where=where) from error
    except faults() as error:
        raise Unavailable(f"'{address}' {fault}: {error}", hint, where=where) from error


def faults() -> tuple[type[Exception], ...]:
    """What the drivers raise, OSError among it; only those that are installed."""
    found: list[type[Exception]] = [OSError]
    try:
        from botocore.exceptions import BotoCoreError

        found.append(BotoCoreError)
    except ImportError:
        pass
    try:
        from azure.core.exceptions import AzureError

        found.append(AzureError)
    except ImportError:
        pass
    return tuple(found)
