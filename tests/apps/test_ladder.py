"""How far an installation has come: nothing counts that stands on nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from noria.apps import ladder, start
from noria.apps.cli import app
from noria.ports import Platform
from noria.wiring import open_project


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    start.make(tmp_path / "shop")
    return open_project(tmp_path / "shop")


def test_a_fresh_project_stands_on_the_ground(platform: Platform) -> None:
    rungs = ladder.climb(platform)
    assert [each.number for each in rungs] == list(range(1, 11))
    assert ladder.height(rungs) == 0
    assert [row[3] for row in ladder.told(rungs) if row[3]] == ["noria up, then noria chat"]


def test_a_rung_counts_only_above_all_those_below(platform: Platform) -> None:
    text = platform.settings.file.read_text()
    platform.settings.file.write_text(f"{text}\n[tasks.helpdesk.release]\ncanary = 0.1\ncontrol = 0.1\n")
    rungs = ladder.climb(open_project(platform.settings.root))
    assert not any(each.reached for each in rungs)


def test_the_command_tells_it(platform: Platform) -> None:
    told = CliRunner().invoke(app, ["doctor", "--ladder", "--json", "--project", str(platform.settings.root)])
    assert told.exit_code == 0
    assert json.loads(told.stdout)["height"] == 0
