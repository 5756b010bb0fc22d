"""`noria judge` from the command line, on a server that somebody else runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from noria.apps import judging
from noria.apps.cli import app
from noria.backends import fake
from noria.errors import Invalid, NotFound
from noria.ports import Engine
from noria.settings import EngineSettings
from noria.traffic.segments import SegmentWriter
from noria.types import Interaction, new_id
from noria.wiring import open_project

TOML = """[project]
name = "shop"
[engines.local]
kind = "openai"
url = "URL"
key = "JUDGE_KEY"
price = { prompt = 1.0, completion = 2.0 }
[[sources]]
name = "faq"
kind = "csv"
path = "faq.csv"
[tasks.helpdesk]
sources = ["faq"]
base = "smollm2-135m-instruct"
engine = "local"
[judges.quality]
engine = "local"
criteria = ["relevance", "accuracy", "clarity"]
[judges.better]
engine = "local"
method = "pairwise"
criteria = "clarity"
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Engine]:
    """Gives every answer the first score of the scale, for want of an opinion."""
    engine = fake.open().start(EngineSettings(kind="fake", model="fake", context=4000), {}, tmp_path / "log")
    yield engine
    engine.close()


@pytest.fixture
def project(tmp_path: Path, server: Engine, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JUDGE_KEY", server.endpoint.key)
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "noria.toml").write_text(TOML.replace("URL", server.endpoint.url))
    rows = [{"question": f"{number}?", "answer": f"It is {number}."} for number in range(30)]
    _write(folder / "rows.jsonl", rows)
    _write(folder / "labels.jsonl", [{**row, "score": 1 + n % 5, "labeller": "anna"} for n, row in enumerate(rows)])
    return folder


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def noria(project: Path, *words: str) -> Any:
    done = CliRunner().invoke(app, ["judge", *words, "--json", "--project", str(project)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def plain(project: Path, *words: str) -> str:
    done = CliRunner().invoke(app, ["judge", *words, "--project", str(project)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.slow
def test_rows_are_judged_stored_listed_shown_and_removed(project: Path) -> None:
    told = noria(project, "run", "quality", "--file", str(project / "rows.jsonl"))
    assert (told["rows"], told["scored"], told["mean"]) == (30, 30, 1.0)
    assert told["calibration"] == "uncalibrated"
    assert told["cost"]["judge"]["cost"] > 0
    assert noria(project, "list")["runs"][0]["ref"] == told["ref"]
    shown = noria(project, "show", told["ref"])
    assert len(shown["judged"]) == 30
    assert "uncalibrated" in plain(project, "list")
    assert "judge alone (uncalibrated)" in plain(project, "show", told["ref"])
    again = noria(project, "run", "quality", "--file", str(project / "rows.jsonl"))
    assert again["cost"]["judge"]["known"] == 30
    assert len(noria(project, "list")["runs"]) == 2
    plain(project, "remove", told["ref"])
    assert [each["ref"] for each in noria(project, "list")["runs"]] == [again["ref"]]
    with pytest.raises(NotFound):
        CliRunner().invoke(app, ["judge", "show", told["ref"], "--project", str(project)], catch_exceptions=False)


@pytest.mark.slow
def test_a_calibration_finds_the_fault_and_corrects_what_comes_after(project: Path) -> None:
    found = noria(project, "calibrate", "quality", "--labels", str(project / "labels.jsonl"))
    assert {"constant", "chance", "strict"} <= set(found["faults"])
    assert found["measures"]["steady"]["value"] == 1.0
    told = noria(project, "run", "quality", "--file", str(project / "rows.jsonl"))
    assert told["calibration"]["mean"]["value"] == pytest.approx(3.0)
    assert told["calibration"]["mean"]["low"] < 3.0 < told["calibration"]["mean"]["high"]
    assert "constant" in told["calibration"]["faults"]
    text = plain(project, "calibrate", "quality", "--labels", str(project / "labels.jsonl"))
    assert "fault, constant" in text
    assert "one labeller" in text
    assert "people would say: mean" in plain(project, "show", told["ref"])
    listed = {each["judge"]: each for each in noria(project, "list")["judges"]}
    assert (listed["quality"]["labels"], listed["better"]["labels"]) == (30, 0)


@pytest.mark.slow
def test_a_calibration_is_that_of_one_wording(project: Path) -> None:
    noria(project, "calibrate", "quality", "--labels", str(project / "labels.jsonl"))
    file = project / "noria.toml"
    file.write_text(file.read_text().replace('"relevance", "accuracy", "clarity"', '"relevance", "accuracy"'))
    told = noria(project, "run", "quality", "--file", str(project / "rows.jsonl"))
    assert told["calibration"] == "uncalibrated"


@pytest.mark.slow
def test_answers_are_made_once_where_there_are_none(project: Path) -> None:
    _write(project / "questions.jsonl", [{"question": "When?"}, {"question": "Where?"}])
    told = noria(project, "run", "quality", "--file", str(project / "questions.jsonl"), "--answers", "local")
    first = noria(project, "show", told["ref"])["judged"]
    assert [each["row"]["answer"] for each in first] == ["When?", "Where?"]
    assert told["cost"]["answers"]["tokens"] > 0
    again = noria(project, "run", "quality", "--file", str(project / "questions.jsonl"), "--answers", "local")
    assert noria(project, "show", again["ref"])["judged"][0]["row"] == first[0]["row"]


@pytest.mark.slow
def test_scores_of_traffic_are_noted_as_feedback_once(project: Path) -> None:
    platform = open_project(project)
    at = platform.clock.now()
    asked = Interaction(
        id=new_id(at), at=at, task="helpdesk", served_by="base", user="u", messages=(
            {"role": "user", "content": "When?"},), conversation="c", context=None, answer="Noon.",
        finish_reason="stop", status=200, error=None, stream=False, prompt_tokens=7, completion_tokens=2,
        first_token_seconds=None, seconds=0.4, trainable=False,
    )  # fmt: skip
    with SegmentWriter(project / ".noria" / "segments") as gateway:
        gateway.append(asked.model_dump_json().encode())
        assert noria(project, "run", "quality", "--task", "helpdesk")["noted"] == 1
        assert noria(project, "run", "quality", "--task", "helpdesk")["noted"] == 0
    _, said = platform.traffic.read(platform.traffic.mark())
    assert [(note.interaction, note.metric, note.value) for note in said] == [(asked.id, "judge:quality", 0.0)]


def test_what_cannot_be_judged_is_told(project: Path) -> None:
    platform = open_project(project)
    with pytest.raises(NotFound, match="no judge 'qualty'"):
        judging.judge_named(platform, "qualty")
    with pytest.raises(Invalid, match="pairwise judge needs two"):
        judging.rows_to_judge(platform, None, "helpdesk", None, pairs=True)
    with pytest.raises(NotFound, match="no report"):
        judging.rows_of_report(platform, "helpdesk", pairs=True)
    with pytest.raises(Invalid, match="not a judgement"):
        judging.remove(platform, "report:helpdesk@0123456789abcdef")
    with pytest.raises(NotFound, match="no engine 'gpu'"):
        judging.answered(platform, "gpu", [], _silent())


def _silent() -> Any:
    from noria.apps.screen import Screen

    return Screen(quiet=True)
