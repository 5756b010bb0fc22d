"""The whole wheel on real components: real sources, Sail, peft, llama.cpp, gateway."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
import turning
from openai import OpenAI

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return turning.make(tmp_path_factory.mktemp("wheel") / "shop")


@pytest.fixture(scope="module")
def first(project: Path) -> dict[str, object]:
    return turning.run(project)


def test_a_cycle_comes_to_a_verdict_with_evidence(first: dict[str, object]) -> None:
    assert first["verdict"] in ("promote", "refuse", "inconclusive")
    assert first["because"]
    stages = first["stages"]
    assert isinstance(stages, list)
    names = [stage["stage"] for stage in stages]
    assert names == ["sources", "documents", "dataset", "features", "adapter", "report", "release"]
    metric = first["metric"]
    assert isinstance(metric, dict)
    assert metric.keys() >= {"name", "before", "after", "gain", "low", "high", "rows"}


def test_the_second_run_redoes_nothing_and_says_so(project: Path, first: dict[str, object]) -> None:
    again = turning.run(project)
    assert turning.outputs(again) | {"release": ""} == turning.outputs(first) | {"release": ""}
    assert [stage["skipped"] for stage in again["stages"]] == [True] * 6 + [False]
    assert "nothing new" in turning.noria("run", "--project", str(project)).stdout


def test_the_adapter_leaves_a_curve_a_picture_and_a_run(project: Path, first: dict[str, object]) -> None:
    kind, name, digest = turning.outputs(first)["adapter"].replace("@", ":").split(":")
    folder = project / "lake" / kind / name / digest
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "loss.json").read_text())["loss"]
    assert (project / "mlflow.db").is_file()


def test_answers_corrections_and_why(project: Path, first: dict[str, object]) -> None:
    turning.promote_latest(project)
    with turning.serving(project) as doors:
        key = (project / ".noria" / "admin.key").read_text().strip()
        client = OpenAI(base_url=f"{doors['data']}/v1", api_key=key)
        raw = client.chat.completions.with_raw_response.create(
            model="helpdesk", messages=[{"role": "user", "content": "How long does delivery take?"}], max_tokens=12
        )
        identity = raw.headers["x-noria-interaction"]
        assert raw.parse().choices[0].message.content
        streamed = client.chat.completions.create(
            model="helpdesk", messages=[{"role": "user", "content": "Do you ship abroad?"}], max_tokens=8, stream=True
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
        body = {"interaction": identity, "metric": "thumbs", "value": 0, "correction": "Three working days."}
        headers = {"authorization": f"Bearer {key}"}
        assert httpx.post(f"{doors['data']}/v1/feedback", json=body, headers=headers).status_code == 200
        why = json.loads(turning.noria("why", identity, "--json", "--project", str(project)).stdout)
        assert httpx.get(f"{doors['control']}/api/why/{identity}", headers=headers).json() == why
        assert httpx.get(f"{doors['control']}/api/status").status_code == 401
    assert why["answer"]["id"] == identity
    assert why["adapter"] == turning.outputs(first)["adapter"]
    assert why["rows"]
    assert all(row["text"] for row in why["rows"])
    assert {source["name"] for source in why["sources"]} == {"faq"}
    traffic = turning.run(project, "dataset")
    assert turning.outputs(traffic)["dataset"] != turning.outputs(first)["dataset"]


def test_a_rollback_is_served_and_holds_against_the_next_cycle(project: Path, first: dict[str, object]) -> None:
    taken_back = turning.champion(project)
    turning.noria("rollback", "--reason", "a test", "--project", str(project))
    assert turning.champion(project) != taken_back
    turning.noria("hold", "--project", str(project))
    assert turning.noria("hold", "--project", str(project), check=False).returncode == 1
    told = turning.run(project)
    assert told["verdict"] == "refuse"
    assert "on hold" in told["because"]


def test_a_second_up_and_a_taken_port_are_one_clear_error(project: Path) -> None:
    with turning.serving(project) as doors:
        again = turning.noria("up", "--project", str(project), check=False)
        assert again.returncode == 1
        assert "is up already" in again.stderr
        other = turning.make(project.parent / "other")
        file = other / "noria.toml"
        port = doors["data"].rpartition(":")[2]
        file.write_text(file.read_text().replace('listen = "127.0.0.1:0"', f'listen = "127.0.0.1:{port}"'))
        taken = turning.noria("up", "--project", str(other), check=False)
        assert taken.returncode == 1
        assert port in taken.stderr
        assert "listen" in taken.stderr
    assert turning.processes_of(project) == []
