"""Tables of a task: what a deployed model is for."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from noria.settings.base import Name, Share, Table
from noria.settings.clean import CLEANING, Cleaning
from noria.settings.gateway import LimitSettings
from noria.settings.labels import LabelSettings
from noria.settings.poisoning import PoisoningSettings
from noria.settings.recipe import LoraRecipe, Recipe
from noria.settings.scrub import ScrubSettings
from noria.settings.split import FeedbackSettings, SplitSettings, SyntheticSettings
from noria.settings.tools import CallingSettings, Pattern
from noria.settings.tune import TuneSettings

Detector = Literal["personal", "secrets", "injection", "unsafe"]
Action = Literal["flag", "redact", "refuse"]
ClassName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s;]([^;\n]*[^\s;])?$")]
"""A class, without a semicolon and without space at its ends."""


class ContextSettings(Table):
    """tasks.NAME.context: the nearest documents of one source go into the prompt."""

    source: Name
    k: int = Field(default=1, ge=1, le=8)
    by: Literal["words", "meaning"] = "words"
    """How they are found: by the words that they share with the question, or by vectors of an encoder."""
    rerank: bool = False
    """The nearest by one way are put in order by both."""
    engine: Name | None = None
    """The engine that makes vectors of texts (`/v1/embeddings`)."""

    @property
    def vectors(self) -> bool:
        """Whether texts are compared by meaning at all."""
        return self.by == "meaning" or self.rerank

    @model_validator(mode="after")
    def _embedded(self) -> Self:
        if self.vectors and self.engine is None:
            raise ValueError("to compare by meaning, name an engine that makes vectors: engine = …")
        if self.engine is not None and not self.vectors:
            raise ValueError('its engine makes vectors, which by = "words" does not use')
        return self


class GateSettings(Table):
    """tasks.NAME.gate: when a candidate may replace the champion."""

    metric: str = "token_f1"
    goal: Literal["better", "not-worse", "cheaper"] = "better"
    """What has to be shown of the metric; `cheaper` is not worse while `cost` is certainly lower."""
    cost: str = "latency"
    margin: Share = 0.02
    """What a guarded slice may lose at the most, and the metric where the goal is not to be better."""
    margins: dict[Name, Share] = Field(default_factory=dict)
    """Slices with a margin of their own, such as small ones whose score is noisy."""
    guards: dict[str, Annotated[float, Field(ge=0.0)]] = Field(default_factory=dict)
    """Other metrics that may not get worse by more than this, each in its own unit."""
    requires: dict[str, float] = Field(default_factory=dict)
    """Results of outside harnesses, such as "lm-eval.TASK.METRIC", and what they must reach with certainty."""
    risk: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Chance that the task, in all its life, ever promotes what does not reach the goal or loses more than a margin."""
    approval: Literal["auto", "human"] = "auto"
    min_rows: int = Field(default=10, ge=2)


class ReleaseSettings(Table):
    """tasks.NAME.release: how a candidate that the gate lets pass takes over."""

    canary: Share = 0.0
    """Share of the traffic on which it must prove itself first; as much goes to a fresh slice of the champion. With 0
    it takes over at once."""
    control: Share = 0.0
    """Share of the traffic that stays with the previous champion afterwards, so that a slow decline shows."""
    primary: str = Field(default="feedback", pattern=r"^(feedback|light|error|latency|judge:[A-Za-z0-9_.-]+)$")
    """What decides: feedback, light, error, latency or judge:NAME."""
    goal: Literal["better", "not-worse"] = "better"
    margin: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.02
    """What the primary metric may lose at the most where the goal is not to be worse."""
    guards: dict[str, Annotated[float, Field(gt=0.0, lt=1.0)]] = Field(
        default_factory=lambda: {"error": 0.02, "latency": 0.05}
    )
    """What else may not be lost, and how much of it at the most; latency is in shares of max_p95_ms."""
    budget: int = Field(default=20_000, ge=10)
    """Answers of the challenger after which an undecided canary ends and the champion stays."""
    days: float = Field(default=14.0, gt=0.0)
    """Longest time of a canary; undecided by then, the champion stays."""
    max_errors: Share = 0.2
    """A challenger that fails more often than this, and than twice the control, is taken back at once."""
    max_p95_ms: float = Field(default=1000, gt=0)
    """95th percentile of the time of an answer beyond which it is taken back at once."""

    @property
    def slice(self) -> float:
        """Largest share that either of a trial's two slices ever has."""
        return max(self.canary, self.control)


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

    kind: Literal["chat", "classify"] = "chat"
    """What it answers with: a text of its own, or one of its classes."""
    classes: tuple[ClassName, ...] = ()
    """Of a task of kind classify; without them those that its sources name. Engines that write are held to them."""
    multi_label: bool = False
    """Whether a target may list several classes, with semicolons between them."""
    sources: tuple[Name, ...]
    faulty: Share = 1.0
    """Share of broken rows, or of broken files, of a source above which the cycle stops."""
    base: str
    engine: Name
    system: str | None = None
    context: ContextSettings | None = None
    clean: Cleaning = CLEANING
    """The steps that make documents of what the sources gave, in order."""
    recipe: Recipe = LoraRecipe()
    tune: TuneSettings | None = None
    """Values of the recipe are searched before it is carried out."""
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
    labels: LabelSettings | None = None
    record: RecordSettings = RecordSettings()
    scrub: ScrubSettings = ScrubSettings()
    split: SplitSettings = SplitSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    synthetic: SyntheticSettings | None = None
    poisoning: PoisoningSettings = PoisoningSettings()
    tools: tuple[Pattern, ...] = ()
    """Tools that it may call, such as "get_current_date" or "table.*"."""
    calling: CallingSettings = CallingSettings()

    @model_validator(mode="before")
    @classmethod
    def _as_classes(cls, table: Any) -> Any:
        """A task of kind classify is measured by its classes where nothing else is said."""
        if not isinstance(table, dict) or table.get("kind") != "classify":
            return table
        several = table.get("multi_label") is True
        gate = table.get("gate", {})
        found = {"metrics": ("accuracy", "hamming_loss" if several else "f1_macro"), **table}
        return {**found, "gate": {"metric": "accuracy", **gate}} if isinstance(gate, dict) else found

    @property
    def measured(self) -> tuple[str, ...]:
        """Metrics that its reports have: what the gate asks for first, each once."""
        cost = (self.gate.cost,) if self.gate.goal == "cheaper" else ()
        return tuple(dict.fromkeys((self.gate.metric, *cost, *self.gate.guards, *self.metrics)))

    @property
    def source_names(self) -> tuple[str, ...]:
        """Its sources and that of its context, each once and in the order of their names."""
        return tuple(sorted({*self.sources, *((self.context.source,) if self.context else ())}))

    @model_validator(mode="after")
    def _classes(self) -> Self:
        if self.kind != "classify":
            told = [name for name in ("classes", "multi_label") if getattr(self, name)]
            if told or self.recipe.kind == "encoder":
                raise ValueError(f'{told[0] if told else "recipe encoder"} is for tasks of kind = "classify"')
            return self
        bare = [" ".join(name.casefold().split()) for name in self.classes]
        if len(self.classes) == 1 or len(set(bare)) < len(bare):
            raise ValueError("a task of kind classify has at least two classes, each once")
        if self.recipe.kind == "encoder" and self.context is not None:
            raise ValueError("an encoder reads the text alone: recipe encoder and context exclude each other")
        return self

    @model_validator(mode="after")
    def _shared_out(self) -> Self:
        answering = sum(arm.share for arm in self.arms.values() if not arm.shadow)
        if answering > 1.0 + 1e-9:
            raise ValueError(
                f"its arms have {answering:g} of the requests; the most is 1, and the champion has the rest"
            )
        if taken := sorted({"champion", "challenger", "control"} & self.arms.keys()):
            raise ValueError(f"an arm cannot be called '{taken[0]}': that is one of noria's own")
        if answering + 2 * self.release.slice > 1.0 + 1e-9:
            raise ValueError(
                f"its canary needs two slices of {self.release.slice:g}, its arms have {answering:g} of the requests; "
                "the most is 1"
            )
        return self
