"""`noria init`: a project that runs as it is."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from noria.errors import Conflict, Invalid

TEMPLATE = ("noria.toml", "data/faq.csv")


def make(folder: Path) -> list[Path]:
    """Write the starter project into `folder`; raises Conflict rather than touch a file that exists."""
    if folder.exists() and not folder.is_dir():
        raise Invalid(f"'{folder}' is not a folder", "name another one")
    targets = [folder / name for name in TEMPLATE]
    for target in targets:
        if target.exists():
            raise Conflict(f"'{target}' exists already", "use another folder, or go on with it: noria doctor")
    name = re.sub(r"[^a-z0-9_-]+", "-", folder.resolve().name.lower()).strip("-_")[:60] or "project"
    for target, source in zip(targets, TEMPLATE, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (files("noria.apps") / "starter" / Path(source).name).read_text()
        target.write_text(text.replace("PROJECT", name))
    return targets
