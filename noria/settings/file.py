"""The whole file: reading it, checking it, and saying where a fault is."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from noria.errors import Invalid, NotFound
from noria.settings import recipe
from noria.settings.base import FORMS, Name, Table, known
from noria.settings.clean import SemanticStep
from noria.settings.gateway import GatewaySettings, LimitSettings
from noria.settings.judge import JudgeExample, JudgeSettings
from noria.settings.labels import ComparisonSettings, LabelSettings
from noria.settings.platform import EngineSettings, HealthSettings, PriceSettings, ProjectSettings, RuntimeSettings
from noria.settings.poisoning import PoisoningSettings
from noria.settings.registry import RegistrySettings
from noria.settings.scrub import ScrubSettings
from noria.settings.source import CrawlSettings, FileLimits, SourceSettings
from noria.settings.split import FeedbackSettings, SplitSettings, SyntheticSettings
from noria.settings.task import (
    ArmSettings,
    ContextSettings,
    GateSettings,
    GuardSettings,
    LightSettings,
    RecordSettings,
    ReleaseSettings,
    TaskSettings,
)
from noria.settings.tools import CallingSettings, DataTableSettings, McpSettings, ToolSettings
from noria.settings.tune import RangeSettings, TuneSettings


class Settings(Table):
    """The whole file, with the folder that its relative paths start from."""

    project: ProjectSettings
    runtime: RuntimeSettings = RuntimeSettings()
    gateway: GatewaySettings = GatewaySettings()
    registry: RegistrySettings = RegistrySettings()
    engines: dict[Name, EngineSettings]
    sources: tuple[SourceSettings, ...] = ()
    tasks: dict[Name, TaskSettings] = Field(default_factory=dict)
    judges: dict[Name, JudgeSettings] = Field(default_factory=dict)
    tools: dict[Name, ToolSettings] = Field(default_factory=dict)
    root: Path
    file: Path

    @property
    def state(self) -> Path:
        """Folder of what belongs to this machine alone: keys, locks, segments, logs."""
        return self.root / ".noria"

    def task(self, name: str | None) -> tuple[str, TaskSettings]:
        """The named task, or the only one when `name` is None; raises NotFound."""
        if name is None and len(self.tasks) == 1:
            name = next(iter(self.tasks))
        if name is None:
            raise Invalid("there is more than one task; say which", f"one of: {', '.join(sorted(self.tasks))}")
        if name not in self.tasks:
            raise NotFound(f"there is no task '{name}'", known(name, self.tasks), where=str(self.file.name))
        return name, self.tasks[name]

    def judge(self, name: str) -> JudgeSettings:
        """The named judge; raises NotFound."""
        if name not in self.judges:
            raise NotFound(f"there is no judge '{name}'", known(name, self.judges), where=self.file.name)
        return self.judges[name]

    def source(self, name: str) -> SourceSettings:
        """The named source; `load` has checked that every name in use exists."""
        return next(source for source in self.sources if source.name == name)

    def place(self, *path: str) -> str:
        """`noria.toml:LINE` of a key, such as `place('tasks', 'helpdesk', 'engine')`."""
        return f"{self.file.name}:{line_of(self.file.read_text(), path)}"


def load(file: Path) -> Settings:
    """Read and check noria.toml; raises NotFound or Invalid with the line of the first fault."""
    file = file.resolve()
    if not file.is_file():
        raise NotFound(f"there is no '{file.name}' in '{file.parent}'", "make one: noria init")
    text = file.read_text()
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        line = f":{found[1]}" if found else ""
        raise Invalid(f"not valid TOML: {error}", "correct that line", where=f"{file.name}{line}") from error
    try:
        settings = Settings.model_validate({**_with_whole_paths(data, file.parent), "root": file.parent, "file": file})
    except ValidationError as error:
        raise _fault(error, text, file.name) from error
    _check_names(settings)
    _check_spaces(settings)
    return settings


def find(start: Path) -> Path:
    """The noria.toml of `start` or its nearest parent folder."""
    for folder in (start, *start.parents):
        if (folder / "noria.toml").is_file():
            return folder / "noria.toml"
    return start / "noria.toml"


def _with_whole_paths(data: dict[str, Any], root: Path) -> dict[str, Any]:
    """Model files named relative to the project become absolute; known names and hub ids stay as they are."""

    def whole(table: object, key: str) -> object:
        value = table.get(key) if isinstance(table, dict) else None
        if isinstance(table, dict) and isinstance(value, str) and value.endswith(".gguf"):
            return {**table, key: str(root / value)}
        return table

    pairs = (("engines", "model"), ("tasks", "base"))
    return {
        **data,
        **{
            group: {name: whole(table, key) for name, table in data[group].items()}
            for group, key in pairs
            if isinstance(data.get(group), dict)
        },
    }


def _fault(error: ValidationError, text: str, name: str) -> Invalid:
    first = error.errors()[0]
    # A name that is wrong itself is where the fault lies, not something below it.
    path = tuple(str(part) for part in first["loc"] if part != "[key]")
    beside = _keys_beside(path)
    if path[0] == "tasks" and path[2:3] == ("recipe",) and path[3:4] and path[3] in recipe.TABLES:
        path = (*path[:3], *path[4:])
    if path[0] == "tasks" and path[2:4] == ("tune", "space") and path[5:6] in (("range",), ("choices",)):
        path = (*path[:5], *path[6:])
    dotted, value = ".".join(path), first.get("input")
    where = f"{name}:{line_of(text, path)}"
    if first["type"] == "extra_forbidden":
        return Invalid(f"unknown key '{dotted}'", known(path[-1], beside), where=where)
    if first["type"] == "missing":
        return Invalid(f"'{dotted}' is missing", f"add {path[-1]} = …", where=where)
    context = first.get("ctx", {})
    if first["type"] == "union_tag_invalid":
        return Invalid(
            f"'{dotted}': there is no kind '{context['tag']}'", known(context["tag"], recipe.TABLES), where=where
        )
    if first["type"] == "clean":
        return Invalid(f"'{dotted}': {context['fact']}", context["hint"], where=where)
    form = FORMS.get(context.get("pattern", ""))
    reason = "not of the right form" if form else first["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(value, dict) else f" (it is '{value}')"
    return Invalid(f"'{dotted}': {reason}{shown}", form or "correct that line", where=where)


def _keys_beside(path: tuple[str, ...]) -> set[str]:
    model: type[BaseModel] | None = Settings
    for part in path[:-1]:
        if part.isdigit() or model is None:
            continue
        if part in recipe.TABLES and model is recipe.RecipeSettings:
            model = recipe.TABLES[part]
        elif part in _TABLES:
            model = FileLimits if part == "limits" and path[0] == "sources" else _TABLES[part]
    keys = set(model.model_fields) if model else set()
    return keys - {"root", "file"} if model is Settings else keys


_TABLES: dict[str, type[BaseModel]] = {
    "project": ProjectSettings,
    "runtime": RuntimeSettings,
    "engines": EngineSettings,
    "sources": SourceSettings,
    "crawl": CrawlSettings,
    "tasks": TaskSettings,
    "judges": JudgeSettings,
    "examples": JudgeExample,
    "context": ContextSettings,
    "recipe": recipe.RecipeSettings,
    "gate": GateSettings,
    "release": ReleaseSettings,
    "gateway": GatewaySettings,
    "limits": LimitSettings,
    "price": PriceSettings,
    "health": HealthSettings,
    "arms": ArmSettings,
    "guards": GuardSettings,
    "lights": LightSettings,
    "labels": LabelSettings,
    "comparison": ComparisonSettings,
    "record": RecordSettings,
    "scrub": ScrubSettings,
    "split": SplitSettings,
    "feedback": FeedbackSettings,
    "synthetic": SyntheticSettings,
    "poisoning": PoisoningSettings,
    "registry": RegistrySettings,
    "tune": TuneSettings,
    "range": RangeSettings,
    "tools": ToolSettings,
    "mcp": McpSettings,
    "tables": DataTableSettings,
    "calling": CallingSettings,
}


def _check_names(settings: Settings) -> None:
    names = [source.name for source in settings.sources]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Invalid(f"two sources are called '{twice[0]}'", "rename one", where=settings.place("sources"))
    for judge, each in settings.judges.items():
        if each.engine not in settings.engines:
            raise Invalid(
                f"judge '{judge}' wants engine '{each.engine}', which is not in the file",
                known(each.engine, settings.engines),
                where=settings.place("judges", judge, "engine"),
            )
    for task, table in settings.tasks.items():
        meaning = table.context.engine if table.context else None
        if meaning in settings.engines and settings.engines[meaning].idle is not None:
            raise Invalid(
                f"engine '{meaning}' finds the context of task '{task}' and must stay loaded", "take its `idle` away",
                where=settings.place("engines", meaning, "idle"),
            )  # fmt: skip
        if not table.sources:
            raise Invalid(
                f"task '{task}' has no sources", "name at least one", where=settings.place("tasks", task, "sources")
            )
        engines, sources = ("engine", set(settings.engines)), ("source", set(names))
        judges, comparison = ("judge", set(settings.judges)), table.labels.comparison if table.labels else None
        wanted = [
            (engines, table.engine, ("engine",)),
            *((engines, each.engine, ("arms", arm, "engine")) for arm, each in table.arms.items()),
            *((engines, each, ("fallback",)) for each in table.fallback),
            *((sources, each, ("sources",)) for each in table.sources),
            *((sources, each.source, ("context",)) for each in (table.context,) if each),
            *((engines, each.engine, ("context", "engine")) for each in (table.context,) if each and each.engine),
            *((engines, each.engine, ("synthetic", "engine")) for each in (table.synthetic,) if each),
            *((sources, each.source, ("synthetic", "source")) for each in (table.synthetic,) if each),
            *((engines, each.engine, ("clean",)) for each in table.clean if isinstance(each, SemanticStep)),
            *((judges, each.judge, ("labels", "comparison")) for each in (comparison,) if each and each.judge),
        ]
        for (kind, there), name, path in wanted:
            if name not in there:
                raise Invalid(
                    f"task '{task}' wants {kind} '{name}', which is not in the file",
                    known(name, there),
                    where=settings.place("tasks", task, *path),
                )


def _check_spaces(settings: Settings) -> None:
    """Refuse a search that its recipe or its metric does not allow; raises Invalid."""
    for task, table in settings.tasks.items():
        if table.tune is not None:
            table.tune.axes(table.recipe, partial(space_place, settings, task))


def space_place(settings: Settings, task: str, field: str) -> str:
    """`noria.toml:LINE` of a field of the task's search space."""
    return settings.place("tasks", task, "tune", *(("space", field) if field else ()))


def line_of(text: str, path: Sequence[str]) -> int:
    """Line (from 1) of the key at `path`, or of the nearest table above it; array tables are counted by index."""
    best, table, counts = 1, [], dict[str, int]()
    target = [part for part in path if part not in ("root", "file")]
    depth = -1
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*(\[\[?)\s*([^\]]+?)\s*\]", line):
            table = [part.strip().strip("\"'") for part in header[2].split(".")]
            if header[1] == "[[":
                counts[header[2]] = counts.get(header[2], -1) + 1
                table.append(str(counts[header[2]]))
            here = table
        elif entry := re.match(r"\s*([\w\"'.-]+)\s*=", line):
            here = [*table, *(part.strip("\"'") for part in entry[1].split("."))]
        else:
            continue
        if here == target[: len(here)] and len(here) > depth:
            best, depth = number, len(here)
    return best
