"""Model versions in a real MLflow, in a database file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_candidates import Turns, project

from noria.backends.mlflow_registry import MlflowRegistry
from noria.errors import NotFound
from noria.registry import versions

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]


def test_versions_are_put_tagged_named_and_removed(tmp_path: Path) -> None:
    registry = MlflowRegistry("sqlite:///mlflow.db", tmp_path)
    assert registry.versions("helpdesk") == []
    model, card = tmp_path / "model", tmp_path / "card"
    for folder, name in ((model, "w.safetensors"), (card, "README.md")):
        folder.mkdir()
        (folder / name).write_text(name)
    (model / "deep").mkdir()
    for name in ("probes.json", "deep/a.json"):
        (model / name).write_text(name)
    folders = {"model": model, "card": card}
    assert registry.put("helpdesk", "candidate:helpdesk@1", {"base": "b", "long": "x" * 9000}, folders) == "1"
    assert registry.put("helpdesk", "candidate:helpdesk@2", {"base": "b"}, folders, ["probes.json"]) == "2"
    assert registry.put("helpdesk", "candidate:helpdesk@1", {"base": "c"}, {"card": card}) == "1"
    newest, oldest = registry.versions("helpdesk")
    assert (newest.version, newest.candidate, newest.aliases) == ("2", "candidate:helpdesk@2", ())
    assert (oldest.tags["base"], len(oldest.tags["long"])) == ("c", 4900)
    registry.alias("helpdesk", {"champion": "1", "challenger": "2"})
    registry.alias("helpdesk", {"champion": "2", "challenger": None})
    assert [each.aliases for each in registry.versions("helpdesk")] == [("champion",), ()]
    registry.tag("helpdesk", "2", {"base": None, "held": "yes"})
    assert registry.versions("helpdesk")[0].tags == {"held": "yes"}

    import mlflow
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    fetched = Path(mlflow.artifacts.download_artifacts("models:/helpdesk@champion", dst_path=str(tmp_path / "got")))
    files = sorted(path.relative_to(fetched).as_posix() for path in fetched.rglob("*") if path.is_file())
    assert files == ["deep/a.json", "w.safetensors"]
    client = MlflowClient(tracking_uri=uri)
    assert client.get_run(client.get_model_version("helpdesk", "1").run_id).info.status == "FINISHED"
    registry.remove("helpdesk", "1")
    with pytest.raises(NotFound):
        registry.remove("helpdesk", "1")
    assert [each.version for each in registry.versions("helpdesk")] == ["2"]


def test_a_run_that_a_killed_process_left_is_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    platform, _ = project(tmp_path / "shop")
    registry = MlflowRegistry("sqlite:///mlflow.db", tmp_path)
    platform = replace(platform, registry=registry)
    turns = Turns(platform)
    first = turns.turn()
    turns.serve(first)

    from mlflow.tracking import MlflowClient

    class Killed(BaseException):
        pass

    def killed(self: MlflowClient, *arguments: object, **more: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", killed)
        with pytest.raises(Killed):
            versions.sync(platform, "helpdesk")
    assert registry.versions("helpdesk") == []
    assert versions.due(platform, "helpdesk")
    assert versions.sync(platform, "helpdesk", whole=False).aliases == {"champion": "1"}
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("helpdesk")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 1
    again = versions.sync(platform, "helpdesk")
    assert (again.added, again.changed, again.aliases) == ([], [], {})
    assert registry.versions("helpdesk")[0].tags["verdict"] == "promote"
