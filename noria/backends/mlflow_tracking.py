"""Experiments in MLflow: in a database file of the project, or on a server that already runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from noria.backends.mlflow_server import MlflowServer

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
        self._server = MlflowServer(uri, root)

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
        with self._server.opened() as client:
            return self._store(client, experiment, name, run, curves, files, parent)

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
        made = client.create_run(self._server.experiment(client, experiment), run_name=name, tags=below)
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


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: JsonValue) -> str:
    return str(value)[:_LONGEST]
