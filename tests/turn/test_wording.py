"""A few-shot candidate on real components: found, measured, served with its examples, explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import turning

from noria import adapters
from noria.types import Message, Wording

pytestmark = pytest.mark.slow

RECIPE = 'recipe = { kind = "few-shot", shots = 2, trials = 2, rows = 6 }'


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = turning.make(tmp_path_factory.mktemp("wording") / "shop", tiny=True)
    file = folder / "noria.toml"
    file.write_text(file.read_text().replace(turning.RECIPE, RECIPE))
    return folder


def test_words_are_found_measured_served_and_explained(project: Path) -> None:
    first = turning.run(project)
    assert first["verdict"] in ("promote", "refuse", "inconclusive")
    outputs = turning.outputs(first)
    folder = project / "lake" / outputs["adapter"].replace(":", "/").replace("@", "/")
    wording = Wording.model_validate_json((folder / "wording.json").read_text())
    assert adapters.kind_of(folder) == "wording"
    assert 1 <= len(wording.shots) <= 2
    again = turning.run(project)
    assert [stage["skipped"] for stage in again["stages"]] == [True] * 6 + [False]

    plain = asked(project)
    assert plain["why"]["wording"] is None
    turning.promote_latest(project)
    shown = asked(project)
    assert shown["served_by"] == turning.champion(project) != plain["served_by"]
    # The examples stand before the question: the engine itself counts them.
    words = sum(len(message.content) for shot in wording.shots for message in (*shot.messages, answer(shot.target)))
    assert shown["prompt_tokens"] - plain["prompt_tokens"] > words / 10
    assert shown["why"]["adapter"] == outputs["adapter"]
    assert [row["id"] for row in shown["why"]["rows"]] == [shot.id for shot in wording.shots]
    assert shown["why"]["wording"] == {"system": None, "shots": len(wording.shots)}
    assert {source["name"] for source in shown["why"]["sources"]} == {"faq"}


def answer(text: str) -> Message:
    return Message(role="assistant", content=text)


def asked(project: Path) -> dict[str, Any]:
    """What is answered while `noria up` runs, who answered it, and why."""
    with turning.serving(project) as doors:
        key = (project / ".noria" / "admin.key").read_text().strip()
        body = {"model": "helpdesk", "messages": [{"role": "user", "content": "How long does delivery take?"}]}
        reply = httpx.post(
            f"{doors['data']}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}, timeout=60
        )
        assert reply.status_code == 200
        identity = reply.headers["x-noria-interaction"]
        why = json.loads(turning.noria("why", identity, "--json", "--project", str(project)).stdout)
    return {
        "served_by": reply.headers["x-noria-served-by"],
        "prompt_tokens": reply.json()["usage"]["prompt_tokens"],
        "why": why,
    }
