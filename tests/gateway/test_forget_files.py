"""Files and batches of a person: whole where the key is theirs, line by line where it is an application's."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from noria.gateway.batch.files import FileStore, new_file
from noria.gateway.batch.forget import forget
from noria.gateway.batch.store import BatchStore
from noria.settings import GatewaySettings

APP, OWN = "app", "own"


def put(store: FileStore, owner: str, number: int, lines: list[dict[str, object]]) -> str:
    identity = f"file-{number:032x}"
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    with closing(store.begin(owner, identity)) as upload:
        upload.write(content)
        upload.keep(new_file(0.0, identity, "x.jsonl", "batch", len(content)))
    return identity


def asked(custom: str, user: str) -> dict[str, object]:
    return {"custom_id": custom, "method": "POST", "url": "/v1/chat/completions", "body": {"user": user}}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    files, batches = FileStore(tmp_path / "files"), BatchStore(tmp_path / "batches")
    source = put(files, APP, 1, [asked("a", "jane"), asked("b", "tom")])
    output = put(files, APP, 2, [{"custom_id": "a", "response": "for jane"}, {"custom_id": "b", "response": "for tom"}])
    put(files, OWN, 3, [asked("c", "anybody")])
    for number, (owner, status) in enumerate([(APP, "completed"), (OWN, "completed"), (APP, "in_progress")], 1):
        told = {
            "id": f"batch_{number:032x}", "status": status, "input_file_id": source, "output_file_id": output,
            "error_file_id": None,
        }  # fmt: skip
        batches.create(owner, {"told": told}, files.path(APP, source, 0.0), GatewaySettings())
        if status == "completed":
            batches.ended(owner, str(told["id"]))
    return tmp_path


def texts(state: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (state / "files" / APP).glob("file-*") if path.suffix != ".json"}


def test_lines_go_from_the_application_and_all_from_the_own_key(state: Path) -> None:
    dry = forget(state, "jane", [OWN], 0.0, dry=True)
    assert "jane" in texts(state)["file-" + f"{1:032x}"]
    removed = forget(state, "jane", [OWN], 0.0, dry=False)
    assert (removed.files, removed.batches, removed.lines) == (dry.files, dry.batches, dry.lines) == (1, 1, 2)
    assert removed.open == [f"batch_{3:032x}"]
    for name, text in texts(state).items():
        assert "jane" not in text
        assert "b" in text
        told = json.loads((state / "files" / APP / f"{name}.json").read_text())
        assert told["bytes"] == len(text)
    assert FileStore(state / "files").identities(OWN) == []
    assert BatchStore(state / "batches").identities(OWN) == []
    assert len(BatchStore(state / "batches").identities(APP)) == 2


@pytest.mark.parametrize(("user", "written"), [("josé", r"jos\u00e9"), ("a/b", r"a\/b"), ('q"', r"q\u0022")])
def test_a_user_is_found_however_the_json_is_escaped(state: Path, user: str, written: str) -> None:
    source = state / "files" / APP / f"file-{1:032x}"
    source.write_text(source.read_text().replace("jane", written))
    assert forget(state, user, [], 0.0, dry=False).lines == 2
    assert written not in source.read_text()
    assert "for jane" not in "".join(texts(state).values())


def test_nobody_else_is_touched(state: Path) -> None:
    before = texts(state)
    removed = forget(state, "nobody", [], 0.0, dry=False)
    assert (removed.files, removed.batches, removed.lines, removed.open) == (0, 0, 0, [])
    assert texts(state) == before
