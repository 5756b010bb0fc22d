"""Judges inside MLflow: mlflow.genai.evaluate with scorers of ours and MLflow's own judges on a local endpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from noria.errors import Invalid, Unavailable
from noria.settings import export, lent
from noria.types import Endpoint

_SQLITE = "sqlite:///"


@dataclass(frozen=True, slots=True)
class Given:
    """What a scorer makes of one row; `value` is None where the judgement is void."""

    value: float | None
    why: str
    extra: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class OwnScorer:
    """A judge of noria's as MLflow's scorer; `score` is given the row's id. `model` is what it is asked of."""

    name: str
    model: str
    score: Callable[[str], Given]


@dataclass(frozen=True, slots=True)
class MlflowJudge:
    """A judge by MLflow's `make_judge`: its instructions in words, the scores it may give, and where it is asked."""

    name: str
    instructions: str
    scores: tuple[int, ...]
    endpoint: Endpoint
    max_tokens: int


@dataclass(frozen=True, slots=True)
class MlflowRow:
    """One row: its id, the question with what stands beside it, the answer, and the wanted answer."""

    id: str
    question: str
    answer: str
    context: str | None
    target: str | None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A finished evaluation: MLflow's run, where it is tracked, and of each scorer its mean and the rows it scored."""

    run: str
    tracking: str
    metrics: dict[str, float]
    scored: dict[str, int]


def evaluate(
    uri: str,
    root: Path,
    experiment: str,
    name: str,
    rows: Sequence[MlflowRow],
    own: Sequence[OwnScorer],
    judges: Sequence[MlflowJudge],
) -> Evaluated:
    """Score all rows in one run of the experiment, called `name`, with a trace and its assessments for each row.

    A relative `sqlite:///` address starts at `root`. Raises Unavailable where MLflow is not installed or away,
    Invalid where it refuses what it was given.
    """
    # Read at import.
    export(
        MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_LOGGING_LEVEL="WARNING", MLFLOW_HTTP_REQUEST_MAX_RETRIES="2",
        MLFLOW_GENAI_EVAL_MAX_WORKERS="4", MLFLOW_GENAI_EVAL_SKIP_TRACE_VALIDATION="true",
    )  # fmt: skip
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ModuleNotFoundError as error:
        raise Unavailable(f"'{error.name}' is not installed", "pip install 'noria[mlflow]'") from error
    tracking = f"{_SQLITE}{root.resolve() / uri.removeprefix(_SQLITE)}" if uri.startswith(_SQLITE) else uri
    try:
        mlflow.set_tracking_uri(tracking)
        if mlflow.get_experiment_by_name(experiment) is None and uri.startswith(_SQLITE):
            place = (root.resolve() / "mlruns" / experiment).as_uri()
            mlflow.create_experiment(experiment, artifact_location=place)
        mlflow.set_experiment(experiment)
        data = [_datum(row) for row in rows]
        scorers = [*(_scorer(each, rows) for each in own), *(_judge(each) for each in judges)]
        # The key is sent in a header: the variable must only be there.
        with lent(OPENAI_API_KEY="none"), mlflow.start_run(run_name=name, tags={"calibration": "uncalibrated"}):
            found = mlflow.genai.evaluate(data=data, scorers=scorers)
    except MlflowException as error:
        kind = Unavailable if error.get_http_status_code() >= 500 else Invalid
        raise kind(f"MLflow at '{tracking}': {error.message}", "look at [runtime] tracking") from error
    columns = {of: f"{of}/value" for of in [*(each.name for each in own), *(each.name for each in judges)]}
    table = found.result_df
    scored = {of: int(table[column].notna().sum()) if column in table else 0 for of, column in columns.items()}
    return Evaluated(str(found.run_id), tracking, {of: float(each) for of, each in found.metrics.items()}, scored)


def _datum(row: MlflowRow) -> dict[str, Any]:
    inputs = {"question": row.question, **({"context": row.context} if row.context else {})}
    told: dict[str, Any] = {"inputs": inputs, "outputs": row.answer}
    if row.target:
        told["expectations"] = {"expected_response": row.target}
    return told


def _scorer(own: OwnScorer, rows: Sequence[MlflowRow]) -> Any:
    from mlflow.entities import AssessmentSource, Feedback
    from mlflow.genai.scorers import scorer

    ids = {(row.question, row.answer): row.id for row in rows}

    def score(inputs: dict[str, Any], outputs: Any) -> Feedback:
        given = own.score(ids[(inputs["question"], str(outputs))])
        source = AssessmentSource(source_type="LLM_JUDGE", source_id=own.model)
        return Feedback(
            name=own.name, value=given.value, rationale=given.why, source=source, metadata=dict(given.extra)
        )

    return scorer(score, name=own.name, aggregations=["mean"])


def _judge(judge: MlflowJudge) -> Any:
    from mlflow.genai import make_judge

    made = make_judge(
        name=judge.name,
        instructions=judge.instructions,
        model=f"openai:/{judge.endpoint.model}",
        feedback_value_type=Literal[judge.scores],
        inference_params={"temperature": 0, "max_tokens": judge.max_tokens},
        base_url=f"{judge.endpoint.url}/chat/completions",
        extra_headers={"Authorization": f"Bearer {judge.endpoint.key}"},
        generate_rationale_first=True,
    )
    # A scale has a mean; of a Literal MLflow takes none by itself.
    made.aggregations = ["mean"]
    return made
