"""Experiments in MLflow: in a database file of the project, or on a server that already runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from noria.errors import Invalid, Unavailable
from noria.settings import export

_SQLITE = "sqlite:///"
_MOST_METRICS, _MOST_PARAMETERS = 1000, 100
"""Most entries that one call of MLflow's log-batch takes (MLflow REST API, LogBatch)."""
_LONGEST = 6000
"""Longest value of a parameter (MLflow REST API, Param)."""


class MlflowTracking:
    """Port `Tracking`. A relative `sqlite:///` address starts at `root`; other addresses are MLflow's own.

    With a database file, artifacts go to `root/mlruns`; a server keeps its own. The first run in a new database
    takes some seconds, in which MLflow makes its tables.
    """

    def __init__(self, uri: str, root: Path) -> None:
        self._local = uri.startswith(_SQLITE)
        self._root = root.resolve()
        self._uri = f"{_SQLITE}{self._root / uri.removeprefix(_SQLITE)}" if self._local else uri

    def log(
        self,
        experiment: str,
        name: str,
        run: Mapping[str, JsonValue],
        curves: Mapping[str, Sequence[float]],
        files: Sequence[Path],
        parent: str | None = None,
    ) -> str:
        """Store one finished run, below the run `parent` where there is one, and return its id.

        Numbers in `run` become metrics, all else parameters; steps of `curves` count from 1. Raises Unavailable when
        MLflow is not installed or does not answer, Invalid when it refuses what it was given.
        """
        client = self._client()
        from mlflow.exceptions import MlflowException

        try:
            return self._store(client, experiment, name, run, curves, files, parent)
        except MlflowException as error:
            kind = Unavailable if error.get_http_status_code() >= 500 else Invalid
            raise kind(f"MLflow at '{self._uri}': {error.message}", "look at [runtime] tracking") from error

    def _client(self) -> Any:
        # MLflow reads them at import; its seven retries would keep a cycle waiting for minutes.
        export(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_LOGGING_LEVEL="WARNING", MLFLOW_HTTP_REQUEST_MAX_RETRIES="2")
        try:
            from mlflow.tracking import MlflowClient
        except ModuleNotFoundError as error:
            raise Unavailable(f"'{error.name}' is not installed", "pip install 'noria[mlflow]'") from error
        return MlflowClient(tracking_uri=self._uri)

    def _store(
        self,
        client: Any,
        experiment: str,
        name: str,
        run: Mapping[str, JsonValue],
        curves: Mapping[str, Sequence[float]],
        files: Sequence[Path],
        parent: str | None,
    ) -> str:
        from mlflow.entities import Metric, Param
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        below = {MLFLOW_PARENT_RUN_ID: parent} if parent else None
        made = client.create_run(self._experiment(client, experiment), run_name=name, tags=below)
        identity, at = str(made.info.run_id), int(made.info.start_time)
        numbers = {key: value for key, value in run.items() if _is_number(value)}
        metrics = [Metric(key, float(str(value)), at, 0) for key, value in numbers.items()]
        for key, values in curves.items():
            metrics += [Metric(key, float(value), at, step) for step, value in enumerate(values, 1)]
        others = [Param(key, _text(value)) for key, value in run.items() if key not in numbers]
        status = "FAILED"
        try:
            for start in range(0, len(metrics), _MOST_METRICS):
                client.log_batch(identity, metrics=metrics[start : start + _MOST_METRICS])
            for start in range(0, len(others), _MOST_PARAMETERS):
                client.log_batch(identity, params=others[start : start + _MOST_PARAMETERS])
            for file in files:
                client.log_artifact(identity, str(file))
            status = "FINISHED"
        finally:
            client.set_terminated(identity, status)
        return identity

    def _experiment(self, client: Any, name: str) -> str:
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        place = (self._root / "mlruns" / name).as_uri() if self._local else None
        return str(client.create_experiment(name, artifact_location=place))


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: JsonValue) -> str:
    return str(value)[:_LONGEST]
