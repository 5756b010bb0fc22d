"""Judges inside a real MLflow: what it stores, and that nothing of it is deprecated."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from noria.apps import judging_mlflow
from noria.apps.screen import Screen
from noria.backends import fake
from noria.errors import Invalid
from noria.ports import Engine, Platform
from noria.settings import EngineSettings
from noria.wiring import open_project

TOML = """[project]
name = "homework"
[engines.local]
kind = "openai"
url = "URL"
key = "JUDGE_KEY"
[judges.quality]
engine = "local"
criteria = ["relevance", "accuracy", "clarity"]
[judges.correctness]
engine = "local"
criteria = "correctness"
[judges.better]
engine = "local"
method = "pairwise"
criteria = "clarity"
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Engine]:
    engine = fake.open().start(EngineSettings(kind="fake", model="fake", context=4000), {}, tmp_path / "log")
    yield engine
    engine.close()


@pytest.fixture
def platform(tmp_path: Path, server: Engine, monkeypatch: pytest.MonkeyPatch) -> Platform:
    monkeypatch.setenv("JUDGE_KEY", server.endpoint.key)
    folder = tmp_path / "homework"
    folder.mkdir()
    (folder / "noria.toml").write_text(TOML.replace("URL", server.endpoint.url))
    rows = [{"question": f"What is {number}?", "target": str(number)} for number in range(3)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_project(folder)


def test_pairs_are_not_for_mlflow(platform: Platform) -> None:
    file = platform.settings.root / "questions.jsonl"
    with Screen(quiet=True) as screen, pytest.raises(Invalid, match="compares pairs"):
        judging_mlflow.evaluate(platform, ["better"], file, "local", None, screen)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_an_evaluation_is_in_mlflow_row_by_row_without_anything_deprecated(platform: Platform) -> None:
    file = platform.settings.root / "questions.jsonl"
    with warnings.catch_warnings(record=True) as caught, Screen(quiet=True) as screen:
        warnings.simplefilter("always")
        told = judging_mlflow.evaluate(platform, ["quality", "correctness"], file, "local", None, screen)
    about = [str(each.message) for each in caught]
    assert not [each for each in about if "mlflow" in each.lower() and "deprecat" in each.lower()]
    assert not [each for each in about if "make_genai_metric" in each]
    assert told["metrics"] == {
        f"{name}/mean": 1.0 for name in ("quality", "quality_mlflow", "correctness", "correctness_mlflow")
    }

    assert set(told["scored"].values()) == {3}

    import mlflow

    client = mlflow.MlflowClient(tracking_uri=told["tracking"])
    run = client.get_run(told["run"])
    assert (run.info.status, run.data.metrics["quality/mean"]) == ("FINISHED", 1.0)
    assert run.info.run_name == "quality correctness on questions.jsonl"
    assert run.data.tags["calibration"] == "uncalibrated"
    traces = mlflow.search_traces(locations=[run.info.experiment_id], run_id=told["run"], return_type="list")
    assert len(traces) == 3
    found = {each.name: each for each in traces[0].info.assessments}
    assert found["quality"].feedback.value == 1.0
    assert found["quality"].source.source_type == "LLM_JUDGE"
    assert found["quality"].metadata["calibration"] == "uncalibrated"
    assert found["quality_mlflow"].feedback.value == 1
    assert "Excellent - Directly addresses" in found["quality_mlflow"].metadata["guideline"]
    assert not list(Path.cwd().glob("mlruns"))
