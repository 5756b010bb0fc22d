"""noria.toml: every wrong file ends in one message with its place and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from noria import settings
from noria.errors import Invalid, NoriaError, NotFound

GOOD = """[project]
name = "helpdesk"

[engines.local]
kind = "llamacpp"
model = "smollm2-135m-instruct"

[[sources]]
name = "faq"
kind = "csv"
path = "faq.csv"

[tasks.helpdesk]
sources = ["faq"]
base = "smollm2-135m-instruct"
engine = "local"
recipe = { kind = "lora", rank = 16 }
"""

RECIPE = 'recipe = { kind = "lora", rank = 16 }'
CASES = {
    "unknown key": ('name = "helpdesk"', 'name = "helpdesk"\nnmae = "x"', 3, "unknown key 'project.nmae'", "name"),
    "wrong type": ("rank = 16", 'rank = "many"', 17, "recipe.rank", "correct"),
    "unknown recipe kind": ('kind = "lora"', 'kind = "lroa"', 17, "no kind 'lroa'", "lora"),
    "unknown recipe key": ("rank = 16", "rnak = 16", 17, "unknown key", "rank"),
    "unknown engine": ('engine = "local"', 'engine = "locl"', 16, "'locl'", "local"),
    "unknown source": ('sources = ["faq"]', 'sources = ["fqa"]', 14, "'fqa'", "faq"),
    "no sources": ('sources = ["faq"]', "sources = []", 14, "no sources", "name"),
    "wrong kind": ('kind = "csv"', 'kind = "cvs"', 10, "kind", "correct"),
    "no engine address": ('model = "smollm2-135m-instruct"\n', "", 4, "either model", "correct"),
    "bad port": ("[engines.local]", '[runtime]\nlisten = "here"\n\n[engines.local]', 5, "listen", "host:port"),
    "missing table": ('[project]\nname = "helpdesk"\n', "", 1, "'project' is missing", "add"),
    "unknown engine of an arm": (RECIPE, f'{RECIPE}\narms.b = {{ engine = "b", share = 0.1 }}', 18, "'b'", "local"),
    "unknown fallback": (RECIPE, f'{RECIPE}\nfallback = ["locl"]', 18, "'locl'", "local"),
    "arms of more than all": (
        RECIPE,
        f'{RECIPE}\narms.b = {{ engine = "local", share = 0.8 }}\narms.c = {{ engine = "local", share = 0.8 }}',
        13,
        "1.6",
        "correct",
    ),
    "arm of a taken name": (
        RECIPE,
        f'{RECIPE}\narms.champion = {{ engine = "local", share = 0.1 }}',
        13,
        "champion",
        "correct",
    ),
    "unknown detector": (RECIPE, f'{RECIPE}\nguards.input = {{ secret = "flag" }}', 18, "input.secret':", "correct"),
    "collector": ("[engines.local]", '[gateway]\notlp = "here:4318"\n\n[engines.local]', 5, "otlp", "http://"),
    "broken TOML": ('name = "faq"', "name = faq", 9, "not valid TOML", "correct"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_file_names_place_and_remedy(tmp_path: Path, case: str) -> None:
    old, new, line, fact, hint = CASES[case]
    assert old in GOOD
    file = tmp_path / "noria.toml"
    file.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(Invalid) as caught:
        settings.load(file)
    assert fact in caught.value.fact
    assert hint in caught.value.hint
    assert caught.value.where == f"noria.toml:{line}"


def test_a_good_file_loads_with_defaults(tmp_path: Path) -> None:
    file = tmp_path / "noria.toml"
    file.write_text(GOOD)
    loaded = settings.load(file)
    assert loaded.tasks["helpdesk"].gate.margin == 0.02
    assert loaded.place("tasks", "helpdesk", "recipe", "rank") == "noria.toml:17"


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        settings.load(tmp_path / "noria.toml")
    assert "noria init" in caught.value.hint


def test_a_model_file_is_found_from_the_project(tmp_path: Path) -> None:
    file = tmp_path / "noria.toml"
    file.write_text(GOOD.replace("smollm2-135m-instruct", "models/own.gguf"))
    loaded = settings.load(file)
    assert loaded.engines["local"].model == loaded.tasks["helpdesk"].base == str(tmp_path / "models" / "own.gguf")


SCRUBBED = """
[tasks.helpdesk.scrub]
actions = { %s = "drop" }
"""


@pytest.mark.parametrize(("kind", "option"), [("name", "names"), ("place", "places"), ("mac", "mac")])
def test_an_action_for_what_is_not_looked_for_is_refused(tmp_path: Path, kind: str, option: str) -> None:
    file = tmp_path / "noria.toml"
    file.write_text(GOOD + SCRUBBED % kind)
    with pytest.raises(Invalid, match=f"'{kind}' has an action, but is not looked for: {option} = true"):
        settings.load(file)
    file.write_text(GOOD + SCRUBBED % kind + f"{option} = true\n")
    assert settings.load(file).tasks["helpdesk"].scrub.model_dump()["actions"] == {kind: "drop"}


SOURCES = {
    'kind = "csv"\npath = "x"\nurl = "https://example.org"': "url is for kind sql and html, not csv",
    'kind = "csv"\npath = "x"\nquery = "select 1"': "query is for kind sql, not csv",
    'kind = "csv"\npath = "x"\nstorage = { anon = true }': "storage is for a path in an object store",
    'kind = "csv"\npath = "x"\npairs = true': "pairs is for kind html and markdown and docx and pdf, not csv",
    'kind = "sql"\nurl = "sqlite:///x"\nquery = "select 1"\npath = "x"': "path is for files",
    'kind = "sql"\nurl = "sqlite:///x"\nquery = "select 1"\nencoding = "utf-8"': "encoding is for files",
    'kind = "html"\npath = "x"\ncrawl = { rate = 2 }': "crawl is for a site: it needs url",
}


@pytest.mark.parametrize("source", SOURCES)
def test_an_option_that_a_source_would_ignore_is_refused(tmp_path: Path, source: str) -> None:
    file = tmp_path / "noria.toml"
    file.write_text(f'{GOOD}\n[[sources]]\nname = "other"\n{source}\n')
    with pytest.raises(Invalid, match=SOURCES[source]):
        settings.load(file)


def test_one_task_needs_no_name_and_a_wrong_name_gets_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "noria.toml"
    file.write_text(GOOD)
    loaded = settings.load(file)
    assert loaded.task(None)[0] == "helpdesk"
    with pytest.raises(NoriaError) as caught:
        loaded.task("helpdeks")
    assert "helpdesk" in caught.value.hint
