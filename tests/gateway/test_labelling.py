"""Answers of a real gateway, from the request to labels, lights and datasets."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from gateway_fakes import asking, fake_engine, running

from noria.apps import start
from noria.apps.recording import recorder
from noria.evaluation import labels
from noria.evaluation.lights import labelled
from noria.evaluation.queue import choose
from noria.ports import Platform
from noria.wiring import open_project

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"


def project(folder: Path) -> Platform:
    start.make(folder)
    file = folder / "noria.toml"
    file.write_text(f"{file.read_text()}\n[tasks.helpdesk.labels]\nfirst = 4\nshare = 0.0\n")
    return open_project(folder)


def ask(client: httpx.Client, text: str, private: bool = False, **more: object) -> str:
    headers = {"x-noria-train": "no"} if private else {}
    got = client.post(CHAT, json=asking(text, **more), headers=headers)
    return str(got.headers["x-noria-interaction"])


def test_from_the_first_answers_to_labels_beside_a_running_gateway(tmp_path: Path) -> None:
    platform = project(tmp_path)
    with fake_engine() as engine, running(platform.settings.state, engine.url) as plane, plane.client() as client:
        private, failed = ask(client, "Tell nobody", private=True), ask(client, "busy")
        first = [ask(client, f"How do I reset it? {number}", stream=number == 1) for number in range(3)]
        batch = choose(platform, "helpdesk")
        assert batch is not None
        assert [row.id for row in batch.rows] == first
        assert not {private, failed} & {row.id for row in batch.rows}
        with recorder(platform) as writer:
            labels.say(platform, writer, "helpdesk", first[0], "ann", "right")
            labels.say(platform, writer, "helpdesk", first[1], "ann", None, "Pull the lever.")
        # Whoever holds a key of the gateway is no labeller, whatever the feedback is called.
        for metric in ("label", "label.removed"):
            sent = {"interaction": first[0], "metric": metric, "value": 0, "user": "labeller:ann"}
            assert client.post("/v1/feedback", json=sent).status_code < 300
        assert [each.value for each in labels.show(platform, "helpdesk", first[0]).labels] == [1.0]
        later = [ask(client, f"And then? {number}") for number in range(3)]
        batch = choose(platform, "helpdesk")
        assert batch is not None
        assert ([row.id for row in batch.rows], batch.considered, batch.before) == (later[:1], 3, 3)
        told = labels.estimate(platform, "helpdesk")
        assert (told["labelled"], told["wanted"], told["covered"]) == (2, 4, 3)
        interactions, feedback = platform.traffic.read(platform.traffic.mark())
        assert labelled(interactions, feedback) == {first[0]: False, first[1]: True}
