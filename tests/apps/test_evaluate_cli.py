"""`noria evaluate` and `noria compare` as a person types them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from noria.apps import start
from noria.apps.cli import app
from noria.errors import NoriaError, NotFound, Unavailable
from noria.evaluation import harness
from noria.evaluation.harness import HarnessReport
from noria.types import Scored
from noria.wiring import open_project

COMMANDS = (
    ["compare"], ["evaluate"], ["evaluate", "list"], ["evaluate", "show"], ["evaluate", "remove"],
    ["evaluate", "harness"], ["evaluate", "harness", "lm-eval"], ["evaluate", "harness", "garak"],
)  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    start.make(tmp_path / "shop")
    return tmp_path / "shop"


def run(*words: str, project: Path) -> str:
    done = CliRunner().invoke(app, [*words, "--project", str(project)])
    if isinstance(done.exception, NoriaError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_an_example(words: list[str]) -> None:
    assert "Example: noria" in CliRunner().invoke(app, [*words, "--help"]).output


@pytest.mark.slow
def test_a_harness_report_is_listed_shown_drawn_and_removed(project: Path) -> None:
    platform = open_project(project)
    made = HarnessReport(
        harness="garak", version="0.17.1", task="helpdesk", model="helpdesk",
        candidate="candidate:helpdesk@" + "0" * 16,
        at=platform.clock.now(), settings={}, notes=("one answer never came",),
        scores={"garak.p.A.d.B": Scored(value=0.75, low=0.3, high=0.95, rows=4)},
    )  # fmt: skip
    ref = str(harness.store(platform, made, {}, 0.0).ref)
    assert json.loads(run("evaluate", "list", "--json", project=project))[0]["report"] == ref
    assert re.search(r"garak\.p\.A\.d\.B +0\.7500 +0\.3000 +0\.9500 +4", run("evaluate", "show", ref, project=project))
    assert "one answer never came" in run("evaluate", "show", ref, project=project)
    page = project / "page.html"
    told = json.loads(run("evaluate", "show", ref, "--html", str(page), "--json", project=project))
    assert told["scores"]["garak.p.A.d.B"]["low"] == 0.3
    assert page.read_text().startswith("<!doctype html>")
    assert "removed" in run("evaluate", "remove", ref, project=project)
    assert json.loads(run("evaluate", "list", "--json", project=project)) == []


def test_what_is_missing_is_one_clear_message(project: Path) -> None:
    with pytest.raises(NotFound, match="no report of 'helpdesk' yet"):
        run("evaluate", "show", project=project)
    with pytest.raises(NotFound, match="no sealed rows yet"):
        run("compare", "base", "champion", project=project)
    with pytest.raises(Unavailable, match="nothing serves here"):
        run("evaluate", "harness", "garak", project=project)
