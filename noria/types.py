"""The nouns that two or more rooms share. All are frozen; what is stored refuses unknown fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Annotated, Literal

from pydantic import Field, JsonValue, PlainSerializer, StringConstraints

from noria.engines import Caps as Caps
from noria.engines import Choices as Choices
from noria.engines import Form as Form
from noria.engines import Generation as Generation
from noria.engines import Load as Load
from noria.jobs import HeadJob as HeadJob
from noria.jobs import TrainingJob as TrainingJob
from noria.messages import Message as Message
from noria.messages import Shot as Shot
from noria.messages import Wording as Wording
from noria.names import Digest as Digest
from noria.names import Record as Record
from noria.names import Ref as Ref
from noria.names import digest_of as digest_of
from noria.names import new_id as new_id
from noria.names import shelf_key as shelf_key
from noria.routes import Arm as Arm
from noria.routes import Endpoint as Endpoint
from noria.routes import KeyGrant as KeyGrant
from noria.routes import Role as Role
from noria.routes import Route as Route
from noria.routes import Snapshot as Snapshot

Verdict = Literal["promote", "refuse", "inconclusive"]
Split = Literal["train", "test"]
Bound = Annotated[float, PlainSerializer(lambda value: value if isfinite(value) else str(value), when_used="json")]
"""An end of an interval; infinite where there is none, and then a text in JSON, which knows no infinity."""
Metrics = dict[str, float]
"""Metric name to value, in the metric's own unit; `noria.evaluation.metrics` has definitions, ranges and directions."""


class Artifact(Record):
    """One thing that a stage made. `meta` holds what was measured while making it and is not part of the digest."""

    ref: Ref
    parents: tuple[Ref, ...]
    run_key: Digest
    meta: dict[str, JsonValue] = Field(default_factory=dict)


class Run(Record):
    """One finished execution of a stage, as the ledger keeps it."""

    key: Digest
    stage: str
    task: str
    cycle: str
    output: Ref
    seconds: float
    peak_mb: float
    at: datetime


class Trial(Record):
    """One trial of a study: the values that were drawn and what came of them.

    `curve` has what was measured on the way, one value for each tenth of the training; `value` is None until the end,
    and for a trial that was pruned or failed. A lost trial was interrupted or killed, and stands in the study again.
    `wh` are watt hours where the machine counts them.
    """

    number: int
    state: Literal["waiting", "running", "complete", "pruned", "failed", "lost"]
    values: dict[str, JsonValue]
    value: float | None = None
    curve: tuple[float, ...] = ()
    seconds: float = 0.0
    wh: float | None = None
    because: str = ""


class Cycle(Record):
    """One turn of the wheel; `ended` is None while it runs or after it was killed."""

    id: str
    task: str
    began: datetime
    ended: datetime | None = None
    verdict: Verdict | None = None


class Document(Record):
    """One text with its provenance.

    `fields` are the named parts a source's `map` may use (heading and body of a page, the columns of a table);
    `file` is relative to the project, `offset` is the byte or row where the document starts, `digest` that of the file.
    """

    id: Digest
    source: str
    text: str
    fields: dict[str, str]
    conversation: str
    file: str
    offset: int
    digest: Digest


class Example(Record):
    """One training or evaluation row.

    `messages` is the conversation up to and including the user's question, without the task's system prompt;
    `context` is what retrieval put beside the question; `target` is the wanted answer. `slice` groups rows in a
    report (`task`, `traffic`, or the name a source declares); `origin` says where the row came from.
    """

    id: Digest
    origin: str
    slice: str
    conversation: str
    messages: tuple[Message, ...]
    context: str | None
    target: str
    split: Split
    document: str = ""


class Candidate(Record):
    """Exactly what would be served: base, adapter, quantization, engine, prompt and the index its context comes from.

    `prompt` is the digest of the rendered prompt definition; the folder `index` of the dataset `index` gives context.
    """

    task: str
    base: Ref
    adapter: Ref | None
    engine: str
    quantization: str
    prompt: Digest
    index: Ref | None = None

    @property
    def ref(self) -> Ref:
        """Name of this candidate by its content."""
        return Ref(kind="candidate", name=self.task, digest=digest_of(self.model_dump(mode="json")))


class Interval(Record):
    """A paired comparison on one metric: values before and after, the gain (after minus before) and its bounds.

    `before_bounds` and `after_bounds` are intervals of the two values by themselves, at the same confidence; `error` is
    the standard error of the gain, over so many `clusters` (conversations). `method` says how the gain's bounds were
    found, with a warning where it is due; `p_value` is McNemar's exact one for independent rows that are right or
    wrong. A bound that does not exist is infinite.
    """

    name: str
    before: float
    after: float
    gain: float
    low: Bound
    high: Bound
    rows: int
    confidence: float = 0.95
    higher_is_better: bool = True
    error: float | None = None
    clusters: int = 0
    before_bounds: tuple[Bound, Bound] | None = None
    after_bounds: tuple[Bound, Bound] | None = None
    method: str = ""
    p_value: float | None = None


class Scored(Record):
    """One number of one candidate with its interval, such as an outside harness gives."""

    value: float
    low: float
    high: float
    rows: int
    confidence: float = 0.95
    higher_is_better: bool = True


class RowScore(Record):
    """What champion and candidate answered to one sealed row, and what each answer scored.

    `tags` are further groups that the row belongs to, such as `{"language": "de"}`; slices are found among them.
    """

    id: Digest
    slice: str
    conversation: str
    question: str
    target: str
    champion: str
    candidate: str
    before: Metrics
    after: Metrics
    tags: dict[str, str] = {}


class Report(Record):
    """A candidate's scores row by row against the champion's on the same sealed rows.

    `intervals` are by slice and metric; the slice `all` holds every row of the task (guard slices excluded).
    """

    candidate: Candidate
    champion: Candidate
    intervals: dict[str, dict[str, Interval]]
    rows: tuple[RowScore, ...]
    checks: Metrics
    """Shares of sampled prefixes: `parity` where trainer and engine agree, `changed` where the adapter matters.

    `trained` is 0 for a candidate whose recipe changed no weights: there is nothing to agree on.
    """


class Decision(Record):
    """The gate's answer: the verdict, the reason in one sentence, and the evidence it rests on."""

    verdict: Verdict
    because: str
    evidence: dict[str, JsonValue]


class Deployment(Record):
    """What serves a task. `version` grows by one at each change and is what compare-and-set compares.

    `held` lists candidate refs that a person or a trial took back: no cycle may promote them. A trial is a share of
    the traffic on which the challenger answers beside the control; once it is promoted there is no challenger, and the
    champion is watched beside the control. `began` is when what is compared now began to be.
    """

    task: str
    version: int
    champion: Candidate | None
    previous: Candidate | None
    decision: Decision
    cycle: str
    actor: str
    at: datetime
    held: tuple[str, ...] = ()
    paused: bool = False
    trial: str = ""
    challenger: Candidate | None = None
    control: Candidate | None = None
    began: datetime | None = None


class Interaction(Record):
    """One request and its answer, as logged by the gateway; never edited.

    `status` is what the client saw, 499 when it left before the end; `user` is a keyed hash, times are seconds.
    `messages` are the client's own, `request` the other fields of its body, `output` the choices where they are more
    than one text; `sources` are ids of the documents in `context`; `logprob` is by token, in nats, `support` the share
    of the answer that is found there, `cost` in the prices' currency.
    """

    kind: Literal["interaction"] = "interaction"
    id: str
    at: datetime
    api: str = "chat"
    task: str
    arm: str = "champion"
    engine: str = ""
    served_by: str
    user: str
    key: str = ""
    conversation: str
    messages: tuple[dict[str, JsonValue], ...]
    request: dict[str, JsonValue] = {}
    context: str | None
    sources: tuple[str, ...] = ()
    answer: str
    output: JsonValue = None
    finish_reason: str | None
    status: int
    error: str | None
    stream: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    first_token_seconds: float | None
    seconds: float
    trainable: bool
    logprob: float | None = None
    support: float | None = None
    findings: tuple[str, ...] = ()
    light: str | None = None
    cost: float | None = None
    trace: str | None = None


LABEL, REMOVED = "label", "label.removed"
"""Metrics of feedback by which a labeller gives a label (neither value nor correction: passes) or takes it back."""


class Feedback(Record):
    """What was said of an interaction later; `correction` is what the answer should have been."""

    kind: Literal["feedback"] = "feedback"
    id: str
    at: datetime
    interaction: str
    metric: str
    value: float | None
    correction: str | None
    user: str


class ApiKey(Record):
    """A key as stored: only its SHA-256. `prefix` is what a person sees in lists; `models` and `limits` as KeyGrant."""

    id: str
    name: str
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    prefix: str
    role: Role
    made: datetime
    revoked: datetime | None = None
    models: tuple[str, ...] = ()
    limits: dict[str, JsonValue] = {}


class Finding(Record):
    """Something a guard saw in a text: half-open character span, score in [0, 1] and the rule that fired."""

    kind: str
    start: int
    end: int
    score: float
    rule: str


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a registered model, as the registry has it: a candidate with what is known of it."""

    model: str
    version: str
    candidate: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...] = ()
