"""noria.toml and the environment, typed. The only module that reads the environment."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from noria.errors import Invalid, NotFound

_NAME, _ADDRESS, _URL = r"^[a-z0-9][a-z0-9_-]{0,62}$", r"^[^:\s]+:\d{1,5}$", r"^https?://\S+$"
_FORMS = {_NAME: "use a-z, 0-9, - and _, 63 at most", _ADDRESS: "give host:port", _URL: "give http://HOST:PORT"}
Name = Annotated[str, Field(pattern=_NAME)]
Address = Annotated[str, Field(pattern=_ADDRESS)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Detector = Literal["personal", "secrets", "injection", "unsafe"]
Action = Literal["flag", "redact", "refuse"]


class Table(BaseModel):
    """A table of noria.toml: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ProjectSettings(Table):
    """[project]: what this folder is called."""

    name: Name


class RuntimeSettings(Table):
    """[runtime]: the only table that differs between a laptop and a cluster."""

    lake: str = "./lake"
    ledger: str = "sqlite:///noria.db"
    tracking: str = "sqlite:///mlflow.db"
    spark: str = "embedded"
    device: str = "auto"
    listen: Address = "127.0.0.1:8000"
    """Address of the data plane; port 0 takes a free one."""
    control: Address = "127.0.0.1:8001"
    """Address of the control plane."""


class LimitSettings(Table):
    """What one key, or all callers of one task, may use; without a number there is no limit.

    A minute's allowance may be spent at once and then comes back evenly. Days are those of UTC.
    """

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Prompt and completion together, as the engine counts them."""
    streams: int | None = Field(default=None, ge=1)
    """Requests that are being answered at the same time."""
    tokens_per_day: int | None = Field(default=None, ge=1)
    cost_per_day: float | None = Field(default=None, gt=0.0)
    """In the currency of the engines' prices."""


class GatewaySettings(Table):
    """[gateway]: the data plane as a whole. `limits` hold for every key that has none of its own."""

    workers: int = Field(default=1, ge=1, le=32)
    body_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    messages: int = Field(default=512, ge=1)
    max_tokens: int = Field(default=8192, ge=1)
    choices: int = Field(default=8, ge=1)
    """The largest `n`."""
    deadline: float = Field(default=600.0, gt=0.0)
    """Seconds for a request, tries and answer together."""
    log_full: Literal["refuse", "drop"] = "refuse"
    """When the disk takes no record: refuse the traffic, or drop the record and count it."""
    limits: LimitSettings = LimitSettings()
    otlp: Annotated[str, Field(pattern=_URL)] | None = None
    """Address of an OpenTelemetry collector (OTLP over HTTP); without it no spans are made."""
    content_in_spans: bool = False
    file_bytes: int = Field(default=200 * 1000 * 1000, ge=1024)
    """The largest file that is taken."""
    files_bytes: int = Field(default=2 * 1000 * 1000 * 1000, ge=1024)
    """Bytes of all files of one key."""
    batch_lines: int = Field(default=50_000, ge=1)
    batch_inflight: int = Field(default=2, ge=1, le=256)
    """A batch's line is asked only while fewer requests than this are in flight, those of clients included."""


class PriceSettings(Table):
    """engines.NAME.price: what a million tokens cost, in any one currency."""

    prompt: float = Field(default=0.0, ge=0.0)
    completion: float = Field(default=0.0, ge=0.0)


class EngineSettings(Table):
    """[engines.NAME]: launched by noria when `model` is given, attached when `url` is."""

    kind: str
    model: str | None = None
    url: str | None = None
    replicas: int = Field(default=1, ge=1, le=64)
    """Processes that noria launches."""
    urls: tuple[str, ...] = ()
    """More servers of an attached engine, equal to the one at `url`."""
    price: PriceSettings = PriceSettings()
    key: str | None = None
    """Name of the environment variable that holds the API key of an attached engine."""
    slots: int = Field(default=4, ge=1, le=256)
    context: int = Field(default=2048, ge=128)
    """Tokens per slot."""
    threads: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.model is None) == (self.url is None):
            raise ValueError("give either model (noria launches the engine) or url (it already runs)")
        return self


class SourceSettings(Table):
    """[[sources]]: where raw data comes from."""

    name: Name
    kind: Literal["csv", "json", "jsonl", "yaml", "html", "sql", "text"]
    path: str | None = None
    url: str | None = None
    query: str | None = None
    map: dict[Literal["question", "answer", "conversation"], str] = Field(default_factory=dict)
    slice: Name = "task"
    """Rows of another slice than `task` are guarded: a candidate may not lose there."""
    limit: int | None = Field(default=None, ge=1)
    """At most this many examples, chosen by content."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "sql" and not (self.url and self.query):
            raise ValueError("a source of kind sql needs url and query")
        if self.kind != "sql" and not self.path:
            raise ValueError(f"a source of kind {self.kind} needs path")
        if self.map and not {"question", "answer"} <= self.map.keys():
            raise ValueError("map needs question and answer")
        return self


class ContextSettings(Table):
    """tasks.NAME.context: the nearest documents of one source go into the prompt."""

    source: Name
    k: int = Field(default=1, ge=1, le=8)


class RecipeSettings(Table):
    """tasks.NAME.recipe: how a candidate is made."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(default=16, ge=1, le=256)
    alpha: int = Field(default=32, ge=1)
    layers: int | None = Field(default=None, ge=1)
    """The uppermost layers that are adapted; all without it. Fewer learn faster and less."""
    epochs: float = Field(default=1.0, gt=0.0, le=100.0)
    """Passes over rows that the start of the training has not seen."""
    batch: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0.0, lt=1.0)
    max_length: int = Field(default=384, ge=32)
    """Tokens of a row; the context is shortened first."""
    start: Literal["champion", "base"] = "champion"
    """Go on from the champion's adapter, replaying known rows, or begin from the base."""
    replay: float = Field(default=0.5, ge=0.0, le=4.0)
    """Known rows per new row when going on from a champion."""
    correction_epochs: float = Field(default=8.0, gt=0.0, le=100.0)
    """Passes over rows that came from corrections: facts need repetition."""
    seed: int = 7


class GateSettings(Table):
    """tasks.NAME.gate: when a candidate may replace the champion."""

    metric: str = "token_f1"
    margin: Share = 0.02
    """What a guarded slice may lose at the most, at the stated confidence."""
    margins: dict[Name, Share] = Field(default_factory=dict)
    """Slices with a margin of their own, such as small ones whose score is noisy."""
    risk: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    approval: Literal["auto", "human"] = "auto"
    min_rows: int = Field(default=10, ge=2)


class ReleaseSettings(Table):
    """tasks.NAME.release: how a promoted candidate takes over."""

    canary: Share = 0.05
    control: Share = 0.02
    max_p95_ms: float = Field(default=1000, gt=0)


class ArmSettings(Table):
    """tasks.NAME.arms.ARM: another engine's base model beside the champion, to compare them on real traffic."""

    engine: Name
    share: Share
    shadow: bool = False
    """Answers are logged and thrown away; the user gets the champion's."""


class GuardSettings(Table):
    """tasks.NAME.guards: what is done where a detector finds something; `flag` notes it in the record only."""

    input: dict[Detector, Action] = Field(default_factory=dict)
    output: dict[Detector, Action] = Field(default_factory=dict)


class ThresholdSettings(Table):
    """Scores from which an answer is green and below which it is red, as far as either could be shown."""

    green: float | None = None
    red: float | None = None


class LightSettings(Table):
    """tasks.NAME.lights: a colour for every answer, calibrated on labelled feedback."""

    wrong: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Most share of wrong answers among green ones."""
    red: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """An answer is red when answers like it are wrong at least this often."""
    risk: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    """Chance that the calibration misses the stated share."""
    confirm: Share = 0.02
    """Share of green answers that ask for confirmation all the same."""
    thresholds: dict[str, ThresholdSettings] = Field(default_factory=dict)
    """By what serves; put here by noria from the calibration: `noria lights calibrate`."""


class RecordSettings(Table):
    """tasks.NAME.record: what is kept of its traffic."""

    sample: Share = 1.0
    """Share of the interactions whose texts are kept; of the others the record has the numbers only."""
    redact: bool = False
    """Personal data in the record is replaced; the answer itself is not touched."""
    keep_days: int | None = Field(default=None, ge=1)


class TaskSettings(Table):
    """[tasks.NAME]: what a deployed model is for; its name is the `model` that clients ask for."""

    kind: Literal["chat"] = "chat"
    sources: tuple[Name, ...]
    base: str
    engine: Name
    system: str | None = None
    context: ContextSettings | None = None
    recipe: RecipeSettings = RecipeSettings()
    metrics: tuple[str, ...] = ("token_f1", "rouge_l", "exact_match")
    gate: GateSettings = GateSettings()
    release: ReleaseSettings = ReleaseSettings()
    max_tokens: int = Field(default=64, ge=1)
    """Most tokens of an answer, in evaluation and where a client names no limit."""
    test_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    context_chars: int = Field(default=600, ge=50)
    """Longest context put into a prompt; longer documents are cut at a sentence."""
    answer_chars: int = Field(default=600, ge=10)
    """Longest target; longer answers are cut at a sentence."""
    limits: LimitSettings = LimitSettings()
    """For all callers of the task together."""
    arms: dict[Name, ArmSettings] = Field(default_factory=dict)
    sticky: Literal["user", "conversation"] = "user"
    """Whose requests stay with one arm."""
    fallback: tuple[Name, ...] = ()
    """Engines that answer with their base model when the task's own cannot, in order."""
    guards: GuardSettings = GuardSettings()
    lights: LightSettings | None = None
    record: RecordSettings = RecordSettings()

    @model_validator(mode="after")
    def _shared_out(self) -> Self:
        answering = sum(arm.share for arm in self.arms.values() if not arm.shadow)
        if answering > 1.0 + 1e-9:
            raise ValueError(
                f"its arms have {answering:g} of the requests; the most is 1, and the champion has the rest"
            )
        if "champion" in self.arms:
            raise ValueError("an arm cannot be called 'champion': that is what noria has promoted")
        return self


class Settings(Table):
    """The whole file, with the folder that its relative paths start from."""

    project: ProjectSettings
    runtime: RuntimeSettings = RuntimeSettings()
    gateway: GatewaySettings = GatewaySettings()
    engines: dict[Name, EngineSettings]
    sources: tuple[SourceSettings, ...] = ()
    tasks: dict[Name, TaskSettings] = Field(default_factory=dict)
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

    def source(self, name: str) -> SourceSettings:
        """The named source; `load` has checked that every name in use exists."""
        return next(source for source in self.sources if source.name == name)

    def place(self, *path: str) -> str:
        """`noria.toml:LINE` of a key, such as `place('tasks', 'helpdesk', 'engine')`."""
        return f"{self.file.name}:{line_of(self.file.read_text(), path)}"


def known(word: str, words: Sequence[str] | dict[str, Any] | set[str]) -> str:
    """A hint that names the nearest known word, or all of them."""
    near = difflib.get_close_matches(word, list(words), n=1)
    return f"did you mean '{near[0]}'?" if near else f"known are: {', '.join(sorted(words)) or 'none'}"


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
    dotted, value = ".".join(path), first.get("input")
    where = f"{name}:{line_of(text, path)}"
    if first["type"] == "extra_forbidden":
        return Invalid(f"unknown key '{dotted}'", known(path[-1], _keys_beside(path)), where=where)
    if first["type"] == "missing":
        return Invalid(f"'{dotted}' is missing", f"add {path[-1]} = …", where=where)
    form = _FORMS.get(first.get("ctx", {}).get("pattern", ""))
    reason = "not of the right form" if form else first["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(value, dict) else f" (it is '{value}')"
    return Invalid(f"'{dotted}': {reason}{shown}", form or "correct that line", where=where)


def _keys_beside(path: tuple[str, ...]) -> set[str]:
    model: type[BaseModel] | None = Settings
    for part in path[:-1]:
        if part.isdigit() or model is None:
            continue
        if part in _TABLES:
            model = _TABLES[part]
    keys = set(model.model_fields) if model else set()
    return keys - {"root", "file"} if model is Settings else keys


_TABLES: dict[str, type[BaseModel]] = {
    "project": ProjectSettings,
    "runtime": RuntimeSettings,
    "engines": EngineSettings,
    "sources": SourceSettings,
    "tasks": TaskSettings,
    "context": ContextSettings,
    "recipe": RecipeSettings,
    "gate": GateSettings,
    "release": ReleaseSettings,
    "gateway": GatewaySettings,
    "limits": LimitSettings,
    "price": PriceSettings,
    "arms": ArmSettings,
    "guards": GuardSettings,
    "lights": LightSettings,
    "record": RecordSettings,
}


def _check_names(settings: Settings) -> None:
    names = [source.name for source in settings.sources]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Invalid(f"two sources are called '{twice[0]}'", "rename one", where=settings.place("sources"))
    for task, table in settings.tasks.items():
        if not table.sources:
            raise Invalid(
                f"task '{task}' has no sources", "name at least one", where=settings.place("tasks", task, "sources")
            )
        engines, sources = ("engine", set(settings.engines)), ("source", set(names))
        wanted = [
            (engines, table.engine, ("engine",)),
            *((engines, each.engine, ("arms", arm, "engine")) for arm, each in table.arms.items()),
            *((engines, each, ("fallback",)) for each in table.fallback),
            *((sources, each, ("sources",)) for each in table.sources),
            *((sources, each.source, ("context",)) for each in (table.context,) if each),
        ]
        for (kind, there), name, path in wanted:
            if name not in there:
                raise Invalid(
                    f"task '{task}' wants {kind} '{name}', which is not in the file",
                    known(name, there),
                    where=settings.place("tasks", task, *path),
                )


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


def environment(name: str, default: str | None = None) -> str | None:
    """One variable of the environment; the only door to it."""
    return os.environ.get(name, default)


def child_environment(**extra: str) -> dict[str, str]:
    """The environment for a child process, with `extra` set."""
    return {**os.environ, **extra}


def export(**values: str) -> None:
    """Set variables of this process that a library reads at import; those already set by the user stay."""
    for name, value in values.items():
        os.environ.setdefault(name, value)


def engine_key(engine: EngineSettings, name: str) -> str:
    """The API key of an attached engine, or `none`; raises Invalid when its variable is not set."""
    if engine.key is None:
        return "none"
    value = environment(engine.key)
    if not value:
        raise Invalid(f"engine '{name}' wants the variable '{engine.key}', which is not set", f"export {engine.key}=…")
    return value
