"""Files of a deployment: the same bytes for the same plan, each with a header that says how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from noria.errors import Conflict, Invalid

MARK = "# Written by: "


class _Plain(yaml.SafeDumper):
    """Without anchors: people and other parsers read these files."""

    def ignore_aliases(self, data: object) -> bool:
        """Of yaml."""
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Of yaml: lists are set in below their key."""
        super().increase_indent(flow, False)


def as_yaml(value: object) -> str:
    """YAML in the order of the dictionaries."""
    return yaml.dump(value, Dumper=_Plain, sort_keys=False, default_flow_style=False, width=110, allow_unicode=True)


def header(command: str, notes: Sequence[str] = ()) -> str:
    """Comment lines for the head of a file."""
    return "".join(f"{line}\n" for line in (f"{MARK}{command}", "# Change noria.toml or the options, not this file.",
                                            *(f"# {note}" for note in notes)))  # fmt: skip


def write(files: Mapping[str, str], out: Path, first: str) -> list[Path]:
    """Write all files into a folder, each whole or not at all; other files in it stay.

    Raises Invalid where `out` is a file, Conflict where `first` lies there and was not made by noria.
    """
    if out.exists() and not out.is_dir():
        raise Invalid(f"'{out}' is a file", "name a folder: --out deploy/")
    there = out / first
    if there.is_file() and not there.read_text(errors="replace").startswith(MARK):
        raise Conflict(f"'{there}' was not made by noria", "name another --out, or move it away")
    out.mkdir(parents=True, exist_ok=True)
    done = []
    for name, text in files.items():
        fresh = out / f".{name}.new"
        fresh.write_text(text)
        done.append(fresh.replace(out / name))
    return done
