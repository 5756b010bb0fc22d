"""The sockets that back-ends plug into, and Platform, the bag of those in use. A port has six methods at most."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import JsonValue

from noria.settings import EngineSettings, Settings
from noria.types import (
    ApiKey,
    Artifact,
    Caps,
    Cycle,
    Deployment,
    Document,
    Endpoint,
    Feedback,
    Form,
    Generation,
    Interaction,
    Message,
    Ref,
    Report,
    Run,
    TrainingJob,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class Clock(Protocol):
    """Where times come from, so that a test can own them."""

    def now(self) -> datetime:
        """Present time, aware, in UTC."""


class Progress(Protocol):
    """Where long work says how far it is."""

    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        """`done` of `total` units of the work called `label`; `note` is shown beside the bar."""


class Lake(Protocol):
    """Artifacts as folders, named by their content."""

    def scratch(self, key: str) -> Path:
        """An empty folder to write in; what was left in it by a killed run is gone."""

    def commit(self, folder: Path, kind: str, name: str) -> Ref:
        """Move a finished scratch folder to its place, atomically; the same content twice is one artifact."""

    def path(self, ref: Ref) -> Path:
        """Folder of an artifact; raises NotFound."""

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


class Engine(Protocol):
    """A running engine. Adapters are those it was started with, addressed by their ref."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers."""

    def extra(self, adapter: Ref | None) -> dict[str, JsonValue]:
        """What a request body must carry so that exactly this adapter answers; raises NotFound for an unknown one."""

    def answer(
        self, messages: Sequence[Message], adapter: Ref | None, max_tokens: int, stop: Sequence[str], how: Form = Form()
    ) -> Generation:
        """One greedy answer, from any thread. Raises Invalid for what it refuses, Unavailable when it is gone."""

    def next_token(self, tokens: Sequence[int], adapter: Ref | None) -> tuple[int, float]:
        """The likeliest next token's id after these and its log-probability."""

    def alive(self) -> bool:
        """Whether it still answers a health check."""

    def close(self) -> None:
        """Stop a launched engine after the requests in flight; leave an attached one alone."""


class EngineKind(Protocol):
    """Starts engines of one kind; what an entry point of the group `noria.engines` opens."""

    @property
    def caps(self) -> Caps:
        """What its engines can do."""

    def base(self, settings: EngineSettings) -> tuple[Ref, str]:
        """Name of the base model by content, and its quantization; raises Invalid for a file that is no model."""

    def start(self, settings: EngineSettings, adapters: Mapping[Ref, Path], log: Path) -> Engine:
        """A ready engine with these adapters (the folders of adapter artifacts); raises Invalid or Unavailable."""


class Trainer(Protocol):
    """Makes adapters."""

    def tokenizer(self, model: Path) -> Path:
        """Folder of the model's own tokenizer, in Hugging Face's layout, unpacked once."""

    def train(self, job: TrainingJob, progress: Progress) -> dict[str, JsonValue]:
        """Write `adapter.gguf`, PEFT's own files and `loss.json` to `job.out`; returns what was measured."""


class Tokenizer(Protocol):
    """A model's own tokenizer with its chat template; `digest` changes when any token id would."""

    digest: str

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the conversation as an engine is given it, up to where the answer starts."""

    def answer(self, text: str) -> list[int]:
        """Token ids of an answer, with the model's own end token."""


class Tracking(Protocol):
    """Where experiments are shown (MLflow)."""

    def log(
        self, experiment: str, name: str, run: Mapping[str, JsonValue], curves: Mapping[str, Sequence[float]],
        files: Sequence[Path],
    ) -> str:  # fmt: skip
        """Store one run: parameters and measures, curves by step, files. Returns its id."""


class Index(Protocol):
    """Nearest documents to a text."""

    def search(self, text: str, k: int) -> list[str]:
        """At most `k` texts, nearest first; empty when nothing matches."""


class Indexes(Protocol):
    """Builds and opens indexes."""

    def build(self, documents: Iterable[Document], folder: Path) -> None:
        """Write an index of these documents into `folder`."""

    def open(self, folder: Path) -> Index:
        """Read one into memory."""


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


@dataclass(frozen=True, slots=True)
class Platform:
    """Every back-end in use. `model` finds a base model's file by name or path; `draw` writes a report's picture."""

    settings: Settings
    clock: Clock
    lake: Lake
    runs: Runs
    deployments: Deployments
    keys: Keys
    engines: Mapping[str, EngineKind]
    model: Callable[[str], Path]
    tokenizer: Callable[[Path], Tokenizer]
    trainer: Trainer
    tracking: Tracking
    indexes: Indexes
    traffic: Traffic
    draw: Callable[[Report, Path], None]
    spark: Callable[[], AbstractContextManager[SparkSession]]
