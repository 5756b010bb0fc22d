"""The sockets of what keeps things: lake, ledger, tracking, indexes, traffic. `noria.ports` hands them on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import JsonValue

from noria.settings import SearchPlan
from noria.types import (
    ApiKey,
    Artifact,
    Cycle,
    Deployment,
    Document,
    Feedback,
    Interaction,
    ModelVersion,
    Ref,
    Run,
    Trial,
)

if TYPE_CHECKING:
    import pyarrow as pa


class Lake(Protocol):
    """Artifacts as folders, named by their content."""

    def scratch(self, key: str) -> Path:
        """An empty folder to write in; what was left in it by a killed run is gone."""

    def commit(self, folder: Path, kind: str, name: str) -> Ref:
        """Move a finished scratch folder to its place, atomically; the same content twice is one artifact."""

    def path(self, ref: Ref) -> Path:
        """Folder of an artifact; raises NotFound."""

    def verified(self, ref: Ref) -> Path:
        """Folder of an artifact whose files are what was committed; raises NotFound, Invalid naming what changed."""

    def has(self, ref: Ref) -> bool:
        """Whether the artifact is there."""


class Runs(Protocol):
    """What was run: the memory that makes a cycle resumable, and the lineage graph."""

    def save(self, cycle: Cycle) -> None:
        """Store a cycle when it starts, and again when it has ended."""

    def record(self, run: Run, artifact: Artifact) -> None:
        """Store a finished run and what it made, in one transaction."""

    def find(self, key: str) -> Artifact | None:
        """What the run with this key made."""

    def artifact(self, ref: Ref) -> Artifact | None:
        """The artifact of this name, with its parents."""

    def cycles(self, task: str | None, limit: int) -> list[tuple[Cycle, list[Run]]]:
        """The latest cycles, newest first, with their runs in order."""


class Deployments(Protocol):
    """What serves, changed by compare-and-set only."""

    def current(self, task: str) -> Deployment | None:
        """The live deployment of a task."""

    def history(self, task: str, limit: int) -> list[Deployment]:
        """Releases of a task, newest first."""

    def swap(self, new: Deployment) -> None:
        """Store `new` if the live version is `new.version - 1`; raises Conflict otherwise."""


class Keys(Protocol):
    """API keys, stored as their SHA-256 only."""

    def all(self) -> list[ApiKey]:
        """Every key, revoked ones too."""

    def add(self, key: ApiKey) -> None:
        """Store a key."""

    def revoke(self, identity: str, at: datetime) -> None:
        """End a key's life; raises NotFound."""


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that a person should look at: what it is about (`engine:local`), what is wrong, what to type next."""

    id: str
    subject: str
    fact: str
    hint: str
    at: datetime
    resolved: datetime | None = None


class Alerts(Protocol):
    """What a person should look at, and until when."""

    def fire(self, alert: Alert) -> None:
        """Store an alert, unless one of this subject is open already."""

    def resolve(self, subject: str, at: datetime) -> None:
        """End the open alert of a subject, if there is one."""

    def open(self) -> list[Alert]:
        """Those that nothing has ended yet, oldest first."""


class Tracking(Protocol):
    """Where experiments are shown (MLflow)."""

    def log(
        self, experiment: str, name: str, run: Mapping[str, JsonValue], curves: Mapping[str, Sequence[float]],
        files: Sequence[Path], parent: str | None = None,
    ) -> str:  # fmt: skip
        """Store one run: parameters and measures, curves by step, files; below run `parent`. Returns its id."""


class Untracked:
    """Port `Tracking` for what is no experiment of its own: nothing is stored."""

    def log(
        self, experiment: str, name: str, run: Mapping[str, JsonValue], curves: Mapping[str, Sequence[float]],
        files: Sequence[Path], parent: str | None = None,
    ) -> str:  # fmt: skip
        """Nothing."""
        return ""


class Study(Protocol):
    """A search that several processes share. What one knows, all know; a trial whose process died is retried."""

    name: str
    plan: SearchPlan

    def ask(self) -> Trial | None:
        """Begin the next trial; None once the budget is spent or the grid is through. Others may be under way."""

    def report(self, number: int, tenth: int, value: float) -> bool:
        """Note what was measured after so many tenths of a trial that this process began; whether to prune it."""

    def tell(self, trial: Trial) -> None:
        """End a trial that this process began, by its state; one that is lost is begun again, by whoever asks next."""

    def trials(self) -> list[Trial]:
        """All of them, by number."""

    def importance(self) -> dict[str, float]:
        """Share of each field in how the trials differ, most first; empty where that cannot be said yet."""

    def once(self, mark: str) -> bool:
        """True for the first who names this mark."""


class Studies(Protocol):
    """Where studies are kept."""

    def open(self, name: str, plan: SearchPlan | None = None) -> Study:
        """Begin a study or go on with it, by this plan; without one it must be there. Raises NotFound."""

    def names(self) -> list[str]:
        """All studies, oldest first: TASK-DIGEST."""

    def remove(self, name: str) -> None:
        """Remove a study with its trials; raises NotFound."""


class Registry(Protocol):
    """Where candidates are shown as versions of a registered model (MLflow). All of it may be asked again."""

    def versions(self, model: str) -> list[ModelVersion]:
        """Every version of a model, newest first; none where there is no such model."""

    def put(
        self,
        model: str,
        candidate: str,
        tags: Mapping[str, str],
        folders: Mapping[str, Path],
        besides: Collection[str] = (),
    ) -> str:
        """Store a candidate's folders by their names, the first of which is the model; returns its version.

        A candidate that has a version keeps it: its folders and tags are added to it. Files named as in `besides`
        are left out.
        """

    def tag(self, model: str, version: str, tags: Mapping[str, str | None]) -> None:
        """Set tags; None takes one away."""

    def alias(self, model: str, aliases: Mapping[str, str | None]) -> None:
        """Let aliases name versions; None takes one away."""

    def remove(self, model: str, version: str) -> None:
        """Remove a version with its files; raises NotFound."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A text that was found, and the id of its document."""

    text: str
    document: str


@dataclass(frozen=True, slots=True)
class Meant:
    """A question as a vector of unit length; what is found by words or by meaning is put in order by both."""

    vector: Sequence[float]
    by: Literal["words", "meaning"] = "meaning"
    rerank: bool = False


Embed = Callable[[Sequence[str]], list[list[float]]]
"""Texts as vectors of unit length. Raises Unavailable when the engine does not answer."""


class Index(Protocol):
    """Nearest documents to a text."""

    def search(self, text: str, k: int, meant: Meant | None = None) -> list[Hit]:
        """At most `k` documents, nearest first; empty when nothing matches. By words where it holds no vectors."""


class Indexes(Protocol):
    """Builds and opens indexes."""

    def build(self, documents: Iterable[Document], folder: Path, embed: Embed | None = None) -> None:
        """Write an index of these documents into `folder`, with their vectors where `embed` makes them."""

    def open(self, folder: Path) -> Index:
        """Read one into memory."""

    def rows(self, folder: Path) -> Iterator[tuple[Hit, list[float]]]:
        """Every document of an index with its vector; nothing where it has no vectors."""


@dataclass(frozen=True, slots=True)
class FeatureView:
    """Rows of one entity by key and time. `project` keeps versions apart, `table` is the folder of its history.

    A row has the columns `entity` (text), the fields, `event_timestamp` (from when on it holds) and `created`
    (when it was made; of two with the same event the later one counts), both in UTC.
    """

    project: str
    name: str
    entity: str
    fields: Mapping[str, Literal["ints", "floats", "int", "text"]]
    table: Path
    tags: Mapping[str, str]


class FeatureStore(Protocol):
    """Rows as they were at a time, for training, and as they are now, for serving."""

    def add(self, view: FeatureView, rows: pa.Table, part: str) -> None:
        """Put rows into the history, once: a part that is there already stays."""

    def history(self, view: FeatureView, asked: pa.Table) -> pa.Table:
        """The rows as they were: `asked` has the columns of the entity and `event_timestamp`; its order is kept.

        Fields are null where there was no row yet. Raises NotFound without a history.
        """

    def materialize(self, view: FeatureView, since: datetime, until: datetime) -> int:
        """Bring each entity's latest row of that time online; returns how many. Raises NotFound, Unavailable."""

    def push(self, view: FeatureView, rows: pa.Table) -> None:
        """Bring rows online at once. Raises Unavailable."""

    def read(self, view: FeatureView, keys: Sequence[str], fields: Sequence[str] = ()) -> pa.Table:
        """The rows that are online, in this order, all fields or these; null where none is. Raises Unavailable."""

    def remove(self, view: FeatureView, keys: Sequence[str], at: datetime) -> int:
        """Take entities out of history and online store; returns how many rows of the history went."""


class Traffic(Protocol):
    """What production said: interactions and feedback, as the lake holds them."""

    def ship(self) -> int:
        """Move what the gateway has logged into the lake, exactly once; returns the number of records."""

    def mark(self) -> JsonValue:
        """What is there now, as a value that changes when a record is added."""

    def read(self, mark: JsonValue) -> tuple[list[Interaction], list[Feedback]]:
        """Everything that was there at `mark`, in order of time."""

    def interaction(self, identity: str) -> Interaction | None:
        """One interaction by its id, shipped or not."""

    def follow(self, task: str, arms: Sequence[str], began: datetime) -> Callable[[], Iterator[Interaction | Feedback]]:
        """Each call gives what is new of a task's arms and of all feedback since `began`, shipped or not."""


class Recorder(Protocol):
    """Where the gateway appends what it answered. A record is safe from `kill -9` when `append` returns."""

    def append(self, record: bytes) -> None:
        """Append one JSON line (without its line end)."""

    def close(self) -> None:
        """Seal the open segment."""
