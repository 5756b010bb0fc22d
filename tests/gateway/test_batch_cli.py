"""`noria batch` against a running gateway."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from gateway_fakes import ANSWER, KEY, fake_engine, running, wait_for

from noria.apps import start
from noria.types import ApiKey
from noria.wiring import open_project


def noria(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "noria", "batch", *words, "--project", str(project)]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)


@pytest.mark.slow
def test_a_batch_is_submitted_looked_at_and_cancelled(tmp_path: Path) -> None:
    project = tmp_path / "shop"
    start.make(project)
    platform = open_project(project)
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    made = datetime(2026, 1, 1, tzinfo=UTC)
    platform.keys.add(ApiKey(id="k1", name="admin", sha256=digest, prefix=KEY[:5], role="admin", made=made))
    state = platform.settings.state
    state.mkdir(exist_ok=True)
    (state / "admin.key").write_text(KEY)
    body = {"model": "helpdesk", "messages": [{"role": "user", "content": "hi"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    file = tmp_path / "in.jsonl"
    file.write_text(json.dumps(line) + "\n")
    assert "start it: noria up" in noria(project, "list").stderr
    with fake_engine() as engine, running(tmp_path / "state", engine.url) as plane:
        (state / "up.json").write_text(json.dumps({"data": plane.url}))
        identity = noria(project, "submit", str(file)).stdout.strip()
        told = wait_for(
            lambda: (
                (found := json.loads(noria(project, "show", identity, "--json").stdout))["status"] == "completed"
                and found
            )
        )
        assert told["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
        output = tmp_path / "out.jsonl"
        assert noria(project, "show", identity, "--output", str(output)).returncode == 0
        assert ANSWER in json.loads(output.read_text())["response"]["body"]["choices"][0]["message"]["content"]
        assert identity in noria(project, "list").stdout
        refused = noria(project, "cancel", identity)
        assert (refused.returncode, "cannot be cancelled" in refused.stderr) == (1, True)
        file.write_text("no json\n")
        wrong = noria(project, "submit", str(file))
        assert (wrong.returncode, "names no endpoint" in wrong.stderr) == (2, True)
