"""A real model on llama.cpp, which calls tools only because it is held to a schema; the command line around it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from noria.apps import tooling
from noria.settings import CallingSettings
from noria.tools.calling import converse
from noria.wiring import open_project

EXAMPLE = Path(__file__).parents[2] / "examples" / "tools"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tools") / "project"
    shutil.copytree(EXAMPLE, folder)
    return folder


def noria(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "noria", *words, *([] if "--help" in words else ["--project", str(project)])]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_every_call_of_a_model_that_knows_no_tools_has_the_right_form(project: Path) -> None:
    platform = open_project(project)
    limits = CallingSettings(steps=2, max_tokens=64, faults=9)
    assert tooling.form_of(platform, "local", limits) == "schema"
    with tooling.toolbox(platform, ["get_*"], "a test") as box, tooling.started(platform, "local") as ask:
        asked = [{"role": "user", "content": "Call get_weather_forecast for London, United Kingdom, on 2026-01-21."}]
        found = converse(ask, box, asked, limits, "schema")
    assert found.made or found.answer or found.ended == "cut"
    assert {each.name for each in found.made} <= {"get_current_date", "get_weather_forecast"}
    assert not {each.outcome for each in found.made} & {"unknown", "denied", "invalid"}


def test_tools_are_listed_shown_and_called_by_hand(project: Path) -> None:
    listed = json.loads(noria(project, "tools", "list", "--json").stdout)
    paths = ["get_current_date", "get_weather_forecast", "table.describe_table", "table.query_table"]
    assert [each["tool"] for each in listed] == paths
    good = noria(project, "tools", "call", "table.query_table", '{"sql": "SELECT count(*) AS n FROM taxi"}')
    assert (good.returncode, good.stdout) == (0, '{"rows": [{"n": 200}]}\n')
    bad = noria(project, "tools", "call", "describe_table", '{"table": "none"}')
    assert (bad.returncode, "bad arguments" in bad.stdout) == (1, True)
    wrong = noria(project, "tools", "call", "describe_table", "{")
    assert (wrong.returncode, "is not JSON" in wrong.stderr) == (2, True)
    assert "Example: noria tools show" in noria(project, "tools", "show", "--help").stdout
    kept = (project / ".noria" / "tools" / "calls.jsonl").read_text()
    assert kept.count("\n") >= 2
