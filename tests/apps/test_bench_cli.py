"""`noria bench`: servers that answer well and badly, runs that are kept, and real llama.cpp at three precisions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_chat import scripted
from tiny_llama import tiny_model
from typer.testing import CliRunner

from noria.apps.cli import app
from noria.errors import Invalid, NoriaError, NotFound

pytestmark = pytest.mark.slow

KEYS = {
    "engine", "precision", "scenario", "concurrency", "requests", "total_s", "mean_s", "ttft_ms", "tokens_per_s",
    "weights_gib", "kv_gib", "peak_gib", "agreement",
}  # fmt: skip
QUICK = ["--rounds", "2", "--requests", "3", "--max-tokens", "12"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)

    def ran(*words: str, plain: bool = False) -> Any:
        done = CliRunner().invoke(app, ["bench", *words, *([] if plain else ["--json"])])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout if plain else json.loads(done.stdout)

    return ran


@pytest.mark.parametrize("words", [["run"], ["list"], ["show"], ["compare"], ["remove"]])
def test_every_bench_command_has_an_example(words: list[str]) -> None:
    assert "Example: noria bench" in CliRunner().invoke(app, ["bench", *words, "--help"]).output


def test_a_server_that_answers_garbage_is_void_and_never_the_fastest(run: Callable[..., Any]) -> None:
    with scripted() as good, scripted("garbage") as bad:
        told = run(good.url, bad.url, "--scenario", "lab,chat", "--concurrency", "1,2", *QUICK)
    assert len(told["rows"]) == 2 * 2 * 2
    for row in told["rows"]:
        assert row.keys() >= KEYS
        assert row["void"] == (row["engine"] == bad.url)
        assert row.get("fastest", False) == (row["engine"] == good.url)
        assert (row["tokens_per_s"] is None) == row["void"]
        assert row["invalid"] == (6 if row["void"] else 0)
        assert row["ignore_eos"]
    assert any("void" in note for note in told["notes"])


def test_engines_are_asked_in_turn_and_the_same(run: Callable[..., Any]) -> None:
    with scripted() as one, scripted() as other:
        run(one.url, other.url, "--scenario", "lab", *QUICK)
        asked = [[body["messages"] for body in server.bodies] for server in (one, other)]
    assert asked[0] == asked[1]


def test_what_nobody_counts_is_void(run: Callable[..., Any]) -> None:
    with scripted("uncounted") as server:
        (row,) = run(server.url, *QUICK)["rows"]
    assert row["void"]
    assert row["faults"] == {"uncounted": 6}


def test_vectors_are_measured_one_by_one_and_in_batches(run: Callable[..., Any]) -> None:
    with scripted("vectors") as server:
        rows = run(server.url, "--scenario", "embeddings", "--rounds", "1")["rows"]
    assert [(row["scenario"], row["requests"], row["invalid"]) for row in rows] == [
        ("embeddings-single", 256, 0),
        ("embeddings-batch", 8, 0),
    ]


def test_runs_are_kept_shown_drawn_compared_and_removed(run: Callable[..., Any], tmp_path: Path) -> None:
    with scripted() as server:
        first = run(server.url, *QUICK, "--out", "one.json", "--plot", "one.svg")
        second = run(server.url, *QUICK)
    assert {each["id"] for each in run("list")["runs"]} == {first["id"], second["id"]}
    assert run("show", first["id"])["rows"] == first["rows"]
    assert json.loads((tmp_path / "one.json").read_text()) == first
    assert (tmp_path / "one.svg").read_text().startswith("<?xml")
    assert run("show", "one.json", "--markdown", plain=True).startswith("| engine | precision |")
    (row,) = run("compare", first["id"], second["id"])["rows"]
    assert row["tokens_per_s"] > 0
    run("remove", first["id"])
    assert [each["id"] for each in run("list")["runs"]] == [second["id"]]
    with pytest.raises(NotFound, match="no run"):
        run("show", first["id"])


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        ([], Invalid, "no engine to measure"),
        (["nobody"], NotFound, "'nobody'"),
        (["llamacpp"], Invalid, "needs a model"),
        (["llamacpp", "--model", "tiny.gguf", "--precisions", "q9"], Invalid, "'q9'"),
        (["llamacpp", "--model", "tiny.gguf", "--precisions", "float32"], Invalid, "'float32'"),
        (["llamacpp", "--model", "tiny.gguf", "--scenario", "embeddings"], Invalid, "no vectors"),
        (["llamacpp", "--scenario", "traffic"], Invalid, "project"),
        (["llamacpp", "--concurrency", "0"], Invalid, "'0'"),
        (["llamacpp", "--plot", "a.jpg"], Invalid, "a.jpg"),
        (["show", "../secret"], NotFound, "no run"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    run: Callable[..., Any], tmp_path: Path, words: list[str], error: type[NoriaError], said: str
) -> None:
    tiny_model(tmp_path / "tiny.gguf")
    with pytest.raises(error, match=said):
        run(*words, plain=True)


@pytest.mark.long
def test_llama_cpp_in_three_precisions(run: Callable[..., Any]) -> None:
    told = run(
        "llamacpp", "--model", "smollm2-135m-instruct", "--precisions", "q4_1,q8_0,q4_0", "--concurrency", "2",
        "--rounds", "1", "--requests", "2", "--max-tokens", "8", "--no-quality",
    )  # fmt: skip
    sizes = {row["precision"]: row["weights_gib"] for row in told["rows"]}
    assert sizes["q4_0"] < sizes["q4_1"] < sizes["q8_0"]
    for row in told["rows"]:
        assert not row["void"], row["faults"]
        assert row["tokens"] == 2 * 8
        assert (row["ignore_eos"], row["prompt_cache"], row["cached_tokens"]) == (True, "off", 0)
        assert row["peak_gib"] > row["weights_gib"]
        assert row["kv_gib"] > 0
    assert any("nothing about what quantizing" in note for note in told["notes"])
