"""From labelled rows to a served classifier: the medical example through the real gateway."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx
import pytest
from turning import noria, run, serving

from noria.traffic.log import TrafficLog

EXAMPLE = Path(__file__).parents[2] / "examples" / "medical"
POSITIVE = "Socio-medical indication for the aid is confirmed."
NEGATIVE = "No specific findings can be derived from the diagnosis currently named as the basis for the regulation."


@pytest.mark.slow
def test_a_classifier_is_trained_promoted_served_recorded_and_taken_back(tmp_path: Path) -> None:
    folder = tmp_path / "medical"
    shutil.copytree(EXAMPLE, folder)
    file = folder / "noria.toml"
    ports = 'spark = "embedded"\nlisten = "127.0.0.1:0"\ncontrol = "127.0.0.1:0"'
    file.write_text(file.read_text().replace('spark = "embedded"', ports))
    told = run(folder)
    assert told["verdict"] == "promote"
    assert told["metric"]["name"] == "accuracy"
    assert told["metric"]["low"] > 0
    again = run(folder)
    assert [stage["output"] for stage in again["stages"][:5]] == [stage["output"] for stage in told["stages"][:5]]
    with serving(folder) as ready:
        key = (folder / ".noria" / "admin.key").read_text().strip()
        with httpx.Client(headers={"authorization": f"Bearer {key}"}, timeout=60) as client:
            root = str(ready["data"]).rstrip("/")
            said = client.post(f"{root}/v1/classify", json={"model": "assessment", "input": [POSITIVE]})
            assert said.status_code == 200, said.text
            assert said.json()["data"][0]["label"] == "yes"
            assert said.json()["model"] == "assessment"
            chat = {"model": "assessment", "messages": [{"role": "user", "content": NEGATIVE}], "logprobs": True}
            answer = client.post(f"{root}/v1/chat/completions", json=chat)
            assert answer.json()["choices"][0]["message"]["content"] == "no"
            assert answer.json()["choices"][0]["logprobs"]["content"][0]["token"] == "no"
            streamed = client.post(f"{root}/v1/chat/completions", json={**chat, "stream": True}).text
            assert '"content":"no"' in streamed
            assert streamed.rstrip().endswith("data: [DONE]")
            assert client.post(f"{root}/v1/embeddings", json={"model": "assessment", "input": "aid"}).status_code == 200
            served = said.headers["x-noria-served-by"]
    log = TrafficLog(folder / ".noria" / "segments", folder / "lake")
    record = next(each for each in log.read(log.mark())[0] if each.api == "classify")
    assert (record.answer, record.served_by) == ("yes", served)
    assert [message["content"] for message in record.messages] == [POSITIVE]
    assert record.logprob is not None
    assert record.logprob < 0
    noria("rollback", "--project", str(folder))
    status = json.loads(noria("status", "--json", "--project", str(folder)).stdout)
    assert status["tasks"]["assessment"]["champion"] != served
