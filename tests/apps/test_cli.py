"""The command line on wrong input: one clear message with place and remedy, exit code 1 or 2, nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Change = Callable[[Path], None]


def noria(*words: str, project: Path | None = None) -> subprocess.CompletedProcess[str]:
    where = ["--project", str(project)] if project else []
    command = [sys.executable, "-m", "noria", *words, *where]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    assert noria("init", str(folder)).returncode == 0
    return folder


def replaced(old: str, new: str) -> Change:
    def change(folder: Path) -> None:
        file = folder / "noria.toml"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return change


def not_a_model(folder: Path) -> None:
    (folder / "own.gguf").write_bytes(b"this is no model at all")
    replaced("smollm2-135m-instruct", "own.gguf")(folder)


def empty_source(folder: Path) -> None:
    (folder / "data" / "faq.csv").write_text("question,answer\n")


def no_map(folder: Path) -> None:
    replaced('map = { question = "question", answer = "answer" }\n', "")(folder)


def no_file(folder: Path) -> None:
    (folder / "noria.toml").unlink()


CASES: dict[str, tuple[Change, str, str]] = {
    "no noria.toml": (no_file, "there is no 'noria.toml'", "noria init"),
    "unknown key": (replaced("slots = 4", "slot = 4"), "unknown key 'engines.local.slot'", "did you mean 'slots'?"),
    "wrong type": (replaced("slots = 4", 'slots = "four"'), "noria.toml:", "correct that line"),
    "unknown kind of engine": (replaced('kind = "llamacpp"', 'kind = "lamacpp"'), "'lamacpp'", "'llamacpp'"),
    "unknown model": (replaced("smollm2-135m-instruct", "smollm3"), "smollm3", "try:"),
    "unknown metric": (replaced('metric = "token_f1"', 'metric = "f2"'), "'f2'", "token_f1"),
    "unknown task option": (replaced("[tasks.helpdesk]", "[tasks.Helpdesk]"), "Helpdesk", "try:"),
    "no such file": (replaced("data/faq.csv", "data/none.csv"), "data/none.csv", "try:"),
    "a file that is no model": (not_a_model, "own.gguf", "try:"),
    "an empty source": (empty_source, "faq", "try:"),
    "no examples": (no_map, "no examples", "map"),
    "an attached engine cannot learn": (
        replaced(
            'kind = "llamacpp"\nmodel = "smollm2-135m-instruct"', 'kind = "openai"\nurl = "http://127.0.0.1:9/v1"'
        ),
        "cannot serve adapters",
        "llamacpp",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_wrong_project_is_one_clear_message(project: Path, case: str) -> None:
    change, fact, remedy = CASES[case]
    change(project)
    done = noria("run", project=project)
    assert done.returncode in (1, 2), done.stderr
    assert fact in done.stderr
    assert remedy in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(project.glob("lake/.scratch/*"))
    assert not list(project.glob("lake/adapter/*"))


def test_init_touches_nothing_that_exists(project: Path) -> None:
    again = noria("init", str(project))
    assert again.returncode == 1
    assert "exists already" in again.stderr


@pytest.mark.slow
def test_doctor_finds_a_sound_project_and_names_what_is_not(project: Path) -> None:
    replaced("[runtime]", '[runtime]\nlisten = "127.0.0.1:0"\ncontrol = "127.0.0.1:0"')(project)
    sound = noria("doctor", project=project)
    assert sound.returncode == 0, sound.stdout + sound.stderr
    replaced("data/faq.csv", "data/none.csv")(project)
    broken = noria("doctor", project=project)
    assert broken.returncode == 1
    assert "FAULT" in broken.stdout
    assert "data/none.csv" in broken.stdout


@pytest.mark.slow
def test_a_key_is_shown_once_listed_and_revoked(project: Path) -> None:
    text = noria("keys", "create", "--name", "app", project=project).stdout.strip()
    assert text.startswith("noria-")
    assert text not in (project / "noria.db").read_bytes().decode("latin-1")
    listed = noria("keys", "list", "--json", project=project).stdout
    assert '"name": "app"' in listed
    assert text not in listed
    identity = listed.split('"id": "')[1].split('"')[0]
    assert noria("keys", "revoke", identity, project=project).returncode == 0
    again = noria("keys", "revoke", identity, project=project)
    assert again.returncode == 1
    assert "noria keys list" in again.stderr
    noria("keys", "create", "--name", "app", project=project)
    assert noria("keys", "revoke", "app", project=project).returncode == 0
    for _ in range(2):
        noria("keys", "create", "--name", "twin", project=project)
    assert "2 live keys" in noria("keys", "revoke", "twin", project=project).stderr


@pytest.mark.slow
def test_a_key_may_be_bound_to_models_and_limits(project: Path) -> None:
    limits = ["--requests-per-minute", "60", "--tokens-per-minute", "900", "--streams", "2"]
    limits += ["--tokens-per-day", "5000", "--cost-per-day", "0.5"]
    made = noria("keys", "create", "--name", "app", "--models", "helpdesk", *limits, "--json", project=project)
    key = json.loads(made.stdout)
    wanted = {
        "requests_per_minute": 60, "tokens_per_minute": 900, "streams": 2, "tokens_per_day": 5000, "cost_per_day": 0.5,
    }  # fmt: skip
    assert (key["models"], key["limits"]) == (["helpdesk"], wanted)
    listed = json.loads(noria("keys", "list", "--json", project=project).stdout)
    assert [(each["models"], each["limits"]) for each in listed if each["id"] == key["id"]] == [(["helpdesk"], wanted)]
    shown = noria("keys", "list", project=project).stdout
    assert "limits" in shown
    assert "helpdesk" in shown
    wrong = noria("keys", "create", "--name", "app", "--models", "helpdsk", project=project)
    assert (wrong.returncode, "did you mean 'helpdesk'?" in wrong.stderr) == (2, True)
    assert noria("keys", "create", "--name", "app", "--cost-per-day", "0", project=project).returncode == 2
    assert noria("keys", "create", "--name", "app", "--streams", "0", project=project).returncode == 2


@pytest.mark.slow
def test_questions_without_a_server_and_ids_without_an_answer(project: Path) -> None:
    asked = noria("chat", "Hello?", project=project)
    assert asked.returncode == 1
    assert "noria up" in asked.stderr
    why = noria("why", "01932f6e-7a3c-7c11-9f00-1234567890ab", project=project)
    assert why.returncode == 1
    assert "x-noria-interaction" in why.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", [["frobnicate"], ["run", "--frobnicate"], ["why"]])
def test_wrong_usage_is_exit_code_2(words: list[str]) -> None:
    assert noria(*words).returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["init", "up", "run", "status", "doctor", "chat", "promote", "rollback", "hold", "why", "demo"]
)
def test_every_command_has_an_example(command: str) -> None:
    assert "Example: noria" in noria(command, "--help").stdout
