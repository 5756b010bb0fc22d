"""Candidates as model versions in MLflow, with their files, tags and aliases."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from noria import formats
from noria.backends.mlflow_server import MlflowServer
from noria.errors import NotFound
from noria.types import ModelVersion

CANDIDATE = "candidate"
"""The tag by which a version, and the run that holds its files, is known."""
_PAGE = 200
_LONGEST = 4900
"""Longest value of a tag (MLflow REST API, ModelVersionTag: 5,000)."""


class MlflowRegistry:
    """Port `Registry`. A candidate's files are those of an MLflow run of its own in the experiment of the model's name.

    Raises Unavailable where MLflow is not installed or does not answer, Invalid for what it refuses.
    """

    def __init__(self, uri: str, root: Path) -> None:
        self._server = MlflowServer(uri, root)

    def versions(self, model: str) -> list[ModelVersion]:
        """Every version of a model, newest first."""
        with self._server.opened() as client:
            aliases = _aliases(client, model)
            return [_told(each, aliases) for each in _versions(client, model)]

    def put(
        self,
        model: str,
        candidate: str,
        tags: Mapping[str, str],
        folders: Mapping[str, Path],
        besides: Collection[str] = (),
    ) -> str:
        """Store a candidate's folders and tags; returns its version."""
        told = {**{key: value[:_LONGEST] for key, value in tags.items()}, CANDIDATE: candidate}
        with self._server.opened() as client:
            there = next((each for each in _versions(client, model) if each.tags.get(CANDIDATE) == candidate), None)
            run = str(there.run_id) if there is not None else self._run(client, model, candidate)
            for name, folder in ((PurePosixPath(name), folder) for name, folder in folders.items()):
                for file in formats.files_of(folder):
                    if file.name not in besides:
                        place = file.parent.relative_to(folder)
                        client.log_artifact(run, str(file), (name / place).as_posix())
            client.set_terminated(run)
            if there is not None:
                for key, value in told.items():
                    client.set_model_version_tag(model, str(there.version), key, value)
                return str(there.version)
            _make_model(client, model)
            source = f"{client.get_run(run).info.artifact_uri}/{next(iter(folders), '')}"
            return str(client.create_model_version(model, source=source, run_id=run, tags=told).version)

    def tag(self, model: str, version: str, tags: Mapping[str, str | None]) -> None:
        """Set tags; None takes one away."""
        with self._server.opened() as client:
            for key, value in tags.items():
                if value is None:
                    client.delete_model_version_tag(model, version, key)
                else:
                    client.set_model_version_tag(model, version, key, value[:_LONGEST])

    def alias(self, model: str, aliases: Mapping[str, str | None]) -> None:
        """Let aliases name versions; None takes one away."""
        with self._server.opened() as client:
            for name, version in aliases.items():
                if version is None:
                    client.delete_registered_model_alias(model, name)
                else:
                    client.set_registered_model_alias(model, name, version)

    def remove(self, model: str, version: str) -> None:
        """Remove a version, and its run, which MLflow keeps as deleted until `mlflow gc`; raises NotFound."""
        with self._server.opened() as client:
            found = next((each for each in _versions(client, model) if str(each.version) == version), None)
            if found is None:
                raise NotFound(f"'{model}' has no version '{version}'", f"list them: noria registry list {model}")
            client.delete_model_version(model, version)
            if found.run_id:
                client.delete_run(found.run_id)

    def _run(self, client: Any, model: str, candidate: str) -> str:
        """The run for a candidate's files; one that a killed process left is taken again."""
        experiment = self._server.experiment(client, model)
        left = client.search_runs([experiment], f"tags.{CANDIDATE} = '{candidate}'", max_results=1)
        if left:
            return str(left[0].info.run_id)
        name = f"candidate {candidate.rpartition('@')[2][:8]}"
        return str(client.create_run(experiment, tags={CANDIDATE: candidate}, run_name=name).info.run_id)


def _make_model(client: Any, model: str) -> None:
    if not client.search_registered_models(f"name = '{model}'"):
        client.create_registered_model(model, tags={"task": model})


def _versions(client: Any, model: str) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = '{model}'", max_results=_PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda each: int(each.version), reverse=True)


def _aliases(client: Any, model: str) -> dict[str, list[str]]:
    """Aliases by version: a search of versions does not tell them."""
    by: dict[str, list[str]] = {}
    for found in client.search_registered_models(f"name = '{model}'"):
        # A version is a number in a database and a text over HTTP.
        for alias, version in found.aliases.items():
            by.setdefault(str(version), []).append(alias)
    return by


def _told(found: Any, aliases: Mapping[str, list[str]]) -> ModelVersion:
    tags = {str(key): str(value) for key, value in found.tags.items()}
    version = str(found.version)
    candidate = tags.pop(CANDIDATE, "")
    return ModelVersion(found.name, version, candidate, tags, tuple(sorted(aliases.get(version, ()))))
