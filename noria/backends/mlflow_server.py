"""The one door to MLflow: a database file of the project, or a server that already runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from noria.buckets import faults
from noria.errors import Invalid, NotFound, Unavailable
from noria.settings import export

_SQLITE = "sqlite:///"
_MISSING = 404


class MlflowServer:
    """MLflow at an address. A relative `sqlite:///` starts at `root`; other addresses are MLflow's own.

    With a database file, artifacts go to `root/mlruns`; a server keeps its own. Its import costs seconds of the
    processor and is not paid before the first use.
    """

    def __init__(self, uri: str, root: Path) -> None:
        self._local = uri.startswith(_SQLITE)
        self._root = root.resolve()
        self._uri = f"{_SQLITE}{self._root / uri.removeprefix(_SQLITE)}" if self._local else uri
        # An address may carry a password.
        self._shown = re.sub(r"//[^/@]*@", "//…@", self._uri)

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """A client; what MLflow raises in the block becomes Unavailable, NotFound or Invalid."""
        # MLflow reads them at import; its seven retries of two minutes each would keep a cycle waiting.
        export(
            MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_LOGGING_LEVEL="WARNING", MLFLOW_HTTP_REQUEST_MAX_RETRIES="2",
            MLFLOW_HTTP_REQUEST_TIMEOUT="30",
        )  # fmt: skip
        try:
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except ModuleNotFoundError as error:
            raise Unavailable(f"'{error.name}' is not installed", "pip install 'noria[mlflow]'") from error
        raised: tuple[type[Exception], ...] = (SQLAlchemyError, *faults())
        try:
            yield MlflowClient(tracking_uri=self._uri)
        except MlflowException as error:
            status = error.get_http_status_code()
            kind = Unavailable if status >= 500 else NotFound if status == _MISSING else Invalid
            raise kind(f"MLflow at '{self._shown}': {error.message}", "look at [runtime] tracking") from error
        except raised as error:
            # MLflow lets pass what its database raises before it is open, and what its artifacts' store raises.
            words = str(error).strip().partition("\n")[0]
            raise Unavailable(f"MLflow at '{self._shown}': {words}", "look at [runtime] tracking") from error

    def experiment(self, client: Any, name: str) -> str:
        """Id of the experiment of this name, which is made where there is none."""
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        place = (self._root / "mlruns" / name).as_uri() if self._local else None
        return str(client.create_experiment(name, artifact_location=place))
