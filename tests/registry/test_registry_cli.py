"""`noria registry`, `why`, `forget` and releases from the command line; MLflow is real where it is asked."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from made_candidates import Turns, project
from trial_fakes import QUESTION, answered, log
from typer.testing import CliRunner

from noria import pseudonyms
from noria.apps.cli import app
from noria.apps.mirror import Mirror
from noria.backends.mlflow_registry import MlflowRegistry
from noria.gateway.record import pseudonym
from noria.ports import Platform
from noria.registry import versions
from noria.types import Candidate

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)


def said(folder: Path, *words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*words, "--project", str(folder)])
    assert done.exit_code == code, f"{done.output} {done.exception}"
    return done.stdout


def told(folder: Path, *words: str) -> Any:
    return json.loads(said(folder, *words, "--json"))


@pytest.fixture
def shop(tmp_path: Path) -> tuple[Path, Platform, Turns]:
    folder = tmp_path / "shop"
    platform, _ = project(folder)
    return folder, platform, Turns(platform)


Shop = tuple[Path, Platform, Turns]


def registered(shop: Shop) -> Candidate:
    """A candidate that serves and has a version, in the registry of this process."""
    _, platform, turns = shop
    made = turns.turn()
    turns.serve(made)
    versions.sync(platform, "helpdesk")
    return made


@pytest.mark.slow
def test_show_bom_and_export_ask_no_registry(shop: Shop, tmp_path: Path) -> None:
    folder, platform, _ = shop
    made = registered(shop)
    shown = told(folder, "registry", "show", "helpdesk", "champion")
    assert (shown["candidate"], shown["version"]) == (str(made.ref), "1")
    assert "## Intended use" in said(folder, "registry", "show", "helpdesk", "1")
    assert (
        json.loads(said(folder, "registry", "show", "helpdesk", made.ref.digest[:6], "--bom"))["specVersion"] == "1.6"
    )
    out = tmp_path / "out"
    assert told(folder, "registry", "export", "helpdesk", "latest", "--to", str(out))["candidate"] == str(made.ref)
    assert (out / "noria.json").is_file()
    assert not (out / "probes.json").exists()
    said(folder, "registry", "export", "helpdesk", "latest", "--to", str(out), code=1)
    said(folder, "registry", "show", "helpdesk", "nothing", code=1)
    said(folder, "registry", "push", "helpdesk", "--to", str(tmp_path / "x"), code=1)
    assert not (folder / "mlflow.db").exists()
    assert platform.lake.has(made.adapter) if made.adapter else False


def test_why_names_version_and_card(shop: Shop) -> None:
    folder, platform, _ = shop
    made = registered(shop)
    answer = answered(1, True).model_copy(update={"served_by": str(made.ref)})
    log(platform, [answer])
    model = told(folder, "why", answer.id)["model"]
    assert (model["name"], model["version"]) == ("helpdesk", "1")
    assert model["card"].startswith("card:helpdesk@")
    assert "version 1 of 'helpdesk'" in said(folder, "why", answer.id)


def test_an_adapter_that_was_changed_is_not_served(shop: Shop) -> None:
    from noria.deployment.fleet import Fleet

    _, platform, turns = shop
    made = turns.turn()
    turns.serve(made)
    assert made.adapter is not None
    file = platform.lake.path(made.adapter) / "answers.json"
    file.write_text(json.dumps({QUESTION: "Evil."}))
    lines: list[str] = []
    now = iter(range(0, 10_000, 100))
    fleet = Fleet(platform, lambda snapshot: None, lambda version, url: True, lines.append, lambda: float(next(now)))
    try:
        fleet.poll()
        assert fleet.snapshot.routes == {}
        assert any("'answers.json' was changed" in line for line in lines)
    finally:
        fleet.close()


@pytest.mark.slow
def test_list_sync_remove_and_releases_on_mlflow(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _, turns = shop
    first, second = turns.turn(), turns.turn()
    assert [each["version"] for each in told(folder, "registry", "list")] == [None, None]
    assert len(told(folder, "registry", "sync")["added"]) == 2
    said(folder, "promote", str(first.ref))
    assert told(folder, "registry", "list")[1]["aliases"] == ["champion"]
    said(folder, "canary", "start", str(second.ref))
    assert [each["aliases"] for each in told(folder, "registry", "list")] == [["challenger"], ["champion"]]
    said(folder, "rollback")
    assert [each["aliases"] for each in told(folder, "registry", "list")] == [[], ["champion"]]
    assert told(folder, "registry", "list")[0]["tags"]["held"] == "yes"
    said(folder, "registry", "remove", "helpdesk", "1", code=1)
    assert told(folder, "registry", "remove", "helpdesk", "2")["version"] == "2"
    left = told(folder, "registry", "list")
    assert [(each["version"], each.get("removed")) for each in left] == [("1", None), (None, True)]
    assert told(folder, "registry", "sync") == {
        "task": "helpdesk",
        "added": [],
        "changed": [],
        "failed": {},
        "aliases": {},
    }


@pytest.mark.slow
def test_forget_names_and_tags_the_versions_that_learned(shop: Shop) -> None:
    folder, platform, turns = shop
    pseudonyms.read(platform.settings.state / "secret")
    made = turns.turn()
    assert made.adapter is not None
    user = pseudonym(pseudonyms.read(platform.settings.state / "secret"), "jane")
    answer = answered(1, True).model_copy(update={"user": user, "conversation": "jane's"})
    log(platform, [answer])
    platform.traffic.ship()
    _teach(turns, made, "jane's")
    said(folder, "registry", "sync")
    found = told(folder, "forget", "jane")
    assert [each["version"] for each in found["versions"]] == ["1"]
    assert found["untagged"] is None
    registry = MlflowRegistry("sqlite:///mlflow.db", folder)
    assert registry.versions("helpdesk")[0].tags["forgotten"]
    assert told(folder, "registry", "sync")["task"] == "helpdesk"
    assert registry.versions("helpdesk")[0].tags["forgotten"]


@pytest.mark.slow
def test_what_is_up_keeps_the_registry_in_step(shop: Shop) -> None:
    folder, platform, turns = shop
    first = turns.turn()
    said(folder, "registry", "sync")
    turns.serve(first)
    lines: list[str] = []
    mirror = Mirror(platform, lines.append)
    deadline = time.monotonic() + 120
    mirror.poll()
    while (mirror._child or versions.due(platform, "helpdesk")) and time.monotonic() < deadline:
        time.sleep(0.1)
        mirror.poll()
    mirror.close()
    assert lines == []
    registry = MlflowRegistry("sqlite:///mlflow.db", folder)
    assert registry.versions("helpdesk")[0].aliases == ("champion",)
    assert "mlflow" not in _modules(folder)


def _modules(folder: Path) -> set[str]:
    """What a process has loaded that watches as `noria up` does."""
    code = (
        "import sys; from noria.wiring import open_project; from noria.apps import up; "
        f"from noria.apps.mirror import Mirror; p = open_project(__import__('pathlib').Path({str(folder)!r})); "
        "Mirror(p, print).poll(); print(' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {*done.stdout.split()}


def _teach(turns: Turns, made: Candidate, conversation: str) -> None:
    """Let the newest data set and features have a row of this conversation."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    adapter = turns.platform.runs.artifact(made.adapter) if made.adapter else None
    assert adapter is not None
    features = turns.platform.runs.artifact(adapter.parents[0])
    assert features is not None
    rows = {"id": ["e1"], "origin": ["traffic:thumbs"], "conversation": [conversation], "target": ["x"],
            "messages": ["[]"], "document": [""]}  # fmt: skip
    pq.write_table(pa.table(rows), turns.platform.lake.path(features.parents[0]) / "train.parquet")
