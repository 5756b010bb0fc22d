"""Experiments in a real MLflow, in a database file."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from noria.backends.mlflow_tracking import MlflowTracking
from noria.errors import Invalid, Unavailable


def test_without_mlflow_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", None)
    with pytest.raises(Unavailable) as caught:
        MlflowTracking("sqlite:///mlflow.db", tmp_path).log("helpdesk", "adapter", {}, {}, [])
    assert caught.value.hint == "pip install 'noria[mlflow]'"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_a_run_can_be_read_back_with_its_curve_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    picture = tmp_path / "loss.png"
    picture.write_bytes(b"not really")
    project = tmp_path / "project"
    project.mkdir()
    tracking = MlflowTracking("sqlite:///mlflow.db", project)
    losses = [2.0 - 0.001 * step for step in range(1500)]
    told = {"start": None, "tokens": 4312, "recipe.kind": "lora", "seconds": 1.5, "resumed": True}
    identity = tracking.log("helpdesk", "adapter 0197", told, {"loss": losses}, [picture])
    again = tracking.log("helpdesk", "adapter 0198", {"long": "x" * 9000}, {}, [])

    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{project / 'mlflow.db'}")
    run = client.get_run(identity)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "adapter 0197")
    assert run.data.params == {"start": "None", "recipe.kind": "lora", "resumed": "True"}
    assert run.data.metrics["tokens"] == 4312
    assert run.data.metrics["seconds"] == 1.5
    curve = sorted(client.get_metric_history(identity, "loss"), key=lambda metric: metric.step)
    assert [metric.step for metric in curve] == list(range(1, 1501))
    assert [metric.value for metric in curve] == pytest.approx(losses)
    assert [file.path for file in client.list_artifacts(identity)] == ["loss.png"]
    assert list((project / "mlruns").rglob("loss.png"))
    assert not list(elsewhere.iterdir())
    assert client.get_run(again).info.experiment_id == run.info.experiment_id

    with pytest.raises(Invalid, match="not:a"):
        tracking.log("helpdesk", "refused", {"not:a\x00name": "x"}, {}, [])
    refused = client.search_runs([run.info.experiment_id], "attributes.run_name = 'refused'")
    assert [each.info.status for each in refused] == ["FAILED"]
    assert "INFO" not in "".join(capfd.readouterr())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(Unavailable, match=str(port)):
        MlflowTracking(f"http://127.0.0.1:{port}", tmp_path).log("helpdesk", "adapter", {}, {}, [])
