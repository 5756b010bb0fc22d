"""`noria tune` as a person types it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tiny_llama import tiny_model
from typer.testing import CliRunner

from noria.apps import start
from noria.apps.cli import app
from noria.errors import Invalid, NoriaError, NotFound
from noria.types import Ref
from noria.wiring import open_project

TOML = """
[project]
name = "shop"
[engines.local]
kind = "llamacpp"
model = "tiny.gguf"
context = 512
[[sources]]
name = "faq"
kind = "csv"
path = "faq.csv"
map = { question = "question", answer = "answer" }
[tasks.help]
sources = ["faq"]
base = "tiny.gguf"
engine = "local"
recipe = { kind = "lora", rank = 4, learning_rate = 1e-4, layers = 1 }
[tasks.help.tune]
trials = 12
space = { learning_rate = { low = 1e-4, high = 1e-1, log = true }, batch = [4, 8] }
"""


def run(*words: str, project: Path) -> str:
    done = CliRunner().invoke(app, [*words, "--project", str(project)])
    if isinstance(done.exception, NoriaError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def told(*words: str, project: Path) -> Any:
    return json.loads(run(*words, "--json", project=project))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Thirty questions of made-up words, and a random model."""
    draw = random.Random(3)

    def word() -> str:
        return "".join(draw.choice("bcdfghklmnprst") + draw.choice("aeiou") for _ in range(draw.randint(2, 4)))

    lines = [f"{' '.join(word() for _ in range(4))}?,{' '.join(word() for _ in range(3))}." for _ in range(30)]
    (tmp_path / "faq.csv").write_text("\n".join(["question,answer", *lines]) + "\n")
    (tmp_path / "noria.toml").write_text(TOML)
    tiny_model(tmp_path / "tiny.gguf")
    return tmp_path


@pytest.mark.parametrize("word", ["run", "show", "list", "remove"])
def test_every_command_has_an_example(word: str) -> None:
    assert "Example: noria tune" in CliRunner().invoke(app, ["tune", word, "--help"]).output


def test_a_task_without_the_table_is_told_what_to_write(tmp_path: Path) -> None:
    start.make(tmp_path)
    with pytest.raises(Invalid, match="'helpdesk' has no table 'tune'") as caught:
        run("tune", project=tmp_path)
    assert "[tasks.helpdesk.tune]" in caught.value.hint
    with pytest.raises(NotFound, match="no table 'tune'"):
        run("tune", "--join", project=tmp_path)
    with pytest.raises(Invalid, match="so its cycle has no study"):
        run("run", "study", project=tmp_path)


def test_nothing_can_be_joined_or_shown_before_it_began(project: Path) -> None:
    with pytest.raises(NotFound, match="no study of 'help' is under way"):
        run("tune", "help", "--join", project=project)
    with pytest.raises(NotFound, match="'help' has no study"):
        run("tune", "show", project=project)
    with pytest.raises(Invalid, match="no sampler 'gird'"):
        run("tune", "--sampler", "gird", project=project)
    assert told("tune", "list", project=project) == []


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_the_cycle_trains_what_the_study_found(project: Path) -> None:
    made = told("tune", "help", "--trials", "2", "--sampler", "random", project=project)
    assert (made["task"], made["complete"], made["budget"]) == ("help", 2, 2)
    assert made["trials"][0]["values"] == {"batch": 8, "learning_rate": 1e-4}
    assert len(made["trials"][0]["curve"]) > 1
    assert made["best"]["value"] == min(each["value"] for each in made["trials"])
    assert made["study"] in run("tune", "show", project=project)
    assert [each["study"] for each in told("tune", "list", "help", project=project)] == [made["study"]]
    file = project / "noria.toml"
    file.write_text(file.read_text().replace("trials = 12", "trials = 2"))
    turned = told("run", "adapter", project=project)
    outputs = {each["stage"]: each["output"] for each in turned["stages"]}
    assert [*outputs][-3:] == ["features", "study", "adapter"]
    assert outputs["study"] == made["output"]
    adapter = open_project(project).runs.artifact(Ref.parse(outputs["adapter"]))
    assert adapter is not None
    recipe = adapter.meta["recipe"]
    assert isinstance(recipe, dict)
    assert {name: recipe[name] for name in ("batch", "learning_rate")} == made["best"]["values"]
    assert Ref.parse(outputs["study"]) in adapter.parents
    run("tune", "remove", made["study"], project=project)
    assert told("tune", "list", project=project) == []
