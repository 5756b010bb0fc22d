"""The sockets that back-ends plug into, and Platform, the bag of those in use. A port has six methods at most."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from pydantic import JsonValue

from noria.settings import EngineSettings, Settings, WeightRecipe
from noria.stores import Alert as Alert
from noria.stores import Alerts as Alerts
from noria.stores import Deployments as Deployments
from noria.stores import Embed as Embed
from noria.stores import FeatureStore as FeatureStore
from noria.stores import FeatureView as FeatureView
from noria.stores import Hit as Hit
from noria.stores import Index as Index
from noria.stores import Indexes as Indexes
from noria.stores import Keys as Keys
from noria.stores import Lake as Lake
from noria.stores import Meant as Meant
from noria.stores import Recorder as Recorder
from noria.stores import Registry as Registry
from noria.stores import Runs as Runs
from noria.stores import Studies as Studies
from noria.stores import Study as Study
from noria.stores import Tracking as Tracking
from noria.stores import Traffic as Traffic
from noria.stores import Untracked as Untracked
from noria.types import Caps, Endpoint, Form, Generation, HeadJob, Load, Message, Ref, Report, TrainingJob

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


@runtime_checkable
class Several(Protocol):
    """An engine of more than one server: some of its adapters, such as whole models, have one of their own."""

    def at(self, adapter: Ref | None) -> Endpoint:
        """Where this adapter answers."""


@runtime_checkable
class Swaps(Protocol):
    """An engine that takes adapters while it runs; whether it can is `Caps.hot`, and how it was started."""

    def load(self, adapter: Ref, folder: Path) -> None:
        """Serve this adapter too; returns once it answers otherwise than the base. Raises Invalid, Unavailable."""

    def unload(self, adapter: Ref) -> None:
        """Serve it no more, after its answers in flight; raises NotFound for one that is not loaded."""


@runtime_checkable
class Measured(Protocol):
    """An engine that tells how busy it is."""

    def measure(self) -> Load:
        """What its own metrics say now; raises Unavailable when it is gone."""


@runtime_checkable
class Launched(Protocol):
    """An engine whose processes run on this machine and belong to noria."""

    @property
    def pids(self) -> tuple[int, ...]:
        """Ids of the processes that were started, each the leader of its own group; their children not among them."""


class Machine(Protocol):
    """What this machine's operating system does with processes."""

    def memory(self, pids: Sequence[int]) -> int:
        """Resident bytes of these processes and all their descendants."""

    def taken(self, pids: Sequence[int]) -> int:
        """Bytes that they hold together, what they share counted once; 0 where that cannot be told."""

    def kill(self, pids: Sequence[int]) -> None:
        """End these processes and their groups at once, by SIGKILL; those that are gone are no error."""

    def confined(self, cores: int, place: int) -> AbstractContextManager[None]:
        """What the calling thread starts within runs on so many cores, from the `place`-th on, for all its life."""


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

    def check(self, model: Path, recipe: WeightRecipe) -> None:
        """Raise Invalid for a recipe that this machine cannot carry out on the model."""

    def train(self, job: TrainingJob, progress: Progress) -> dict[str, JsonValue]:
        """Write what serves and `loss.json` to `job.out`; returns what was measured."""


class HeadTrainer(Protocol):
    """Makes heads on encoders."""

    def train(self, job: HeadJob, progress: Progress) -> dict[str, JsonValue]:
        """Write `head.safetensors`, `labels.json`, `probes.json` and `loss.json`; returns what was measured."""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What a model is told of a tool; `parameters` is a JSON schema of an object."""

    name: str
    description: str
    parameters: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call gave: text for the model; `outcome` is ok, invalid (bad arguments), failed or late."""

    text: str
    outcome: Literal["ok", "invalid", "failed", "late"] = "ok"


class ToolSource(Protocol):
    """Where tools come from: a process that runs functions, or an MCP server. Calls may come from several threads."""

    def specs(self) -> Sequence[ToolSpec]:
        """Its tools, each with a name of its own."""

    def call(self, name: str, arguments: Mapping[str, JsonValue], seconds: float, limit: int) -> ToolResult:
        """Carry out a call; stopped after so many seconds. Never raises. More than `limit` characters are not used."""

    def close(self) -> None:
        """Stop what it runs."""


Encode = Callable[[Sequence[Sequence[Mapping[str, Any]]], Sequence[str]], tuple[list[list[int]], list[list[int]]]]
"""Conversations and answers in, the token ids of each out, as `Tokenizer.prompt` and `Tokenizer.answer` give them."""


class Tokenizer(Protocol):
    """A model's own tokenizer with its chat template; `digest` changes when any token id would."""

    digest: str

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the conversation as an engine is given it, up to where the answer starts."""

    def answer(self, text: str) -> list[int]:
        """Token ids of an answer, with the model's own end token."""


@runtime_checkable
class Portable(Tokenizer, Protocol):
    """A tokenizer that can be sent to where the rows are."""

    def sent(self) -> Callable[[], Encode]:
        """Opens the same tokenizer anywhere, such as on a worker without noria: a closure over plain values."""


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
    heads: HeadTrainer
    tracking: Tracking
    registry: Registry
    indexes: Indexes
    traffic: Traffic
    draw: Callable[[Report, Path], None]
    spark: Callable[[], AbstractContextManager[SparkSession]]
    features: FeatureStore
    studies: Studies
    alerts: Alerts
