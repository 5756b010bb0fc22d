"""A real cycle's candidate: registered in MLflow, made again to the same digest, carried to another project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import turning

pytestmark = pytest.mark.slow


def told(folder: Path, *words: str) -> Any:
    return json.loads(turning.noria(*words, "--json", "--project", str(folder)).stdout)


def share(folder: Path) -> Path:
    file = folder / "noria.toml"
    file.write_text(f"{file.read_text()}\n[registry]\nshare = true\n")
    return folder


def test_from_a_cycle_to_another_project(tmp_path: Path) -> None:
    project = share(turning.make(tmp_path / "shop", tiny=True))
    adapter = turning.outputs(turning.run(project))["adapter"]
    (version,) = told(project, "registry", "list")
    assert (version["version"], version["tags"]["adapter"], version["recipe"]) == ("1", adapter, "lora")
    turning.promote_latest(project)
    assert told(project, "registry", "list")[0]["aliases"] == ["champion"]

    again = told(project, "replay", version["candidate"])
    assert again["same"], again
    assert again["machine"] == again["made_on"]
    told(project, "registry", "sync")
    assert told(project, "registry", "list")[0]["tags"]["replay"] == "made again, the same digest"
    card = turning.noria("registry", "show", "helpdesk", "champion", "--project", str(project)).stdout
    assert "made again, the same digest" in card

    out = tmp_path / "out"
    told(project, "registry", "push", "helpdesk", "champion", "--to", str(out), "--probes")
    other = share(turning.make(tmp_path / "other", tiny=True))
    turning.run(other, "dataset")
    pulled = told(other, "registry", "pull", "helpdesk", "--from", str(out), "--report")
    assert (pulled["adapter"], pulled["measured"], pulled["version"]) == (adapter, True, "1")
    turning.noria("promote", pulled["candidate"], "--project", str(other))
    assert turning.champion(other) == pulled["candidate"]
