"""A small project whose stage `sources` is run on real files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import JsonValue

from noria.lake import collect
from noria.ports import Platform
from noria.settings import Settings, load
from noria.stage import Look, Work
from noria.types import Feedback, Interaction

HEAD = """
[project]
name = "shop"
[engines.local]
kind = "llamacpp"
model = "none"
[tasks.help]
sources = ["data"]
base = "none"
engine = "local"
"""


class Silence:
    """Port Traffic with nothing in it."""

    def ship(self) -> int:
        return 0

    def mark(self) -> JsonValue:
        return None

    def read(self, mark: JsonValue) -> tuple[list[Interaction], list[Feedback]]:
        return [], []

    def interaction(self, identity: str) -> Interaction | None:
        return None


class Heard:
    """Progress that is written down."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        assert done <= total
        self.notes.append(note)


class Project:
    """A folder with a noria.toml and one source, or with a noria.toml of its own."""

    def __init__(self, root: Path, source: str | None, more: str = "", task: str = "help") -> None:
        self.root, self.task = root, task
        self.heard = Heard()
        self.meta: Mapping[str, Any] = {}
        if source is not None:
            (root / "noria.toml").write_text(f'{HEAD}{more}[[sources]]\nname = "data"\n{source}\n')

    @property
    def platform(self) -> Platform:
        used = {"settings": self.settings, "traffic": Silence()}
        parts: dict[str, Any] = {part.name: used.get(part.name) for part in fields(Platform)}
        return Platform(**parts)

    @property
    def settings(self) -> Settings:
        return load(self.root / "noria.toml")

    @property
    def told(self) -> dict[str, Any]:
        """What the last run told of the source."""
        told: dict[str, Any] = self.meta["sources"]["data"]
        return told

    def observed(self) -> JsonValue:
        return collect.observes(Look(self.platform, self.task, self.settings.tasks[self.task], {}))

    def run(self, observed: JsonValue = None) -> dict[str, list[dict[str, Any]]]:
        out = self.root / "out"
        out.mkdir(exist_ok=True)
        seen = self.observed() if observed is None else observed
        task = self.settings.tasks[self.task]
        self.meta = collect.work(Work(self.platform, self.task, task, "c", {}, seen, out, self.heard))
        assert not (out / "spill").exists()
        return {file.stem: pq.read_table(file).to_pylist() for file in out.glob("*.parquet")}
