"""What a run ran on: the interpreter, the kind of processor and every installed package."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from pydantic import JsonValue

from noria.names import digest_of

_WIDE = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")
"""Instructions by which numeric libraries choose how they compute, and so how they round."""


def recorded() -> dict[str, JsonValue]:
    """The environment as JSON: `digest` of interpreter and packages, `machine`, `python` and the `packages`."""
    named = packages()
    told: dict[str, JsonValue] = {"python": platform.python_version(), "packages": {**named}}
    return {"digest": digest_of(told), "machine": machine(), **told}


@cache
def packages() -> Mapping[str, str]:
    """Every installed package with its version, in the order of their names (PEP 503)."""
    found: dict[str, str] = {}
    for each in metadata.distributions():
        # What stands first on the path is what is imported.
        found.setdefault(normal(each.metadata["Name"]), each.version)
    return MappingProxyType(dict(sorted(found.items())))


def normal(name: str) -> str:
    """A package's name as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def licence(package: str, version: str) -> tuple[str, bool] | None:
    """What an installed package says of its licence, and whether that is an SPDX expression (PEP 639).

    None where it says nothing, or where another version is installed.
    """
    try:
        found = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return None
    told = found.metadata
    if found.version != version:
        return None
    if expression := told.get_all("License-Expression"):
        return str(expression[0]), True
    classified = [line.split(" :: ")[-1] for line in told.get_all("Classifier") or () if line.startswith("License ::")]
    named = [each for each in classified if each != "OSI Approved"] or told.get_all("License") or [""]
    text = ", ".join(named).split("\n")[0].strip()
    return (text, False) if 0 < len(text) <= 120 and text != "UNKNOWN" else None


def machine() -> str:
    """The kind of processor: its name, which wide instructions it has, and how many cores this process may use."""
    name, flags = platform.processor() or platform.machine(), ""
    file = Path("/proc/cpuinfo")
    if file.is_file():
        lines = dict(line.split("\t", 1) for line in file.read_text().split("\n\n")[0].splitlines() if "\t" in line)
        told: Mapping[str, str] = {key.strip(): value.strip(": \t") for key, value in lines.items()}
        name = told.get("model name", name)
        flags = told.get("flags", told.get("Features", ""))
    wide = [each for each in _WIDE if each in flags.split()]
    return f"{' '.join([platform.machine(), name, *wide])}, {_cores()} cores"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
