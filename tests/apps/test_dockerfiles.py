"""Rules that the Dockerfiles keep; there need be no Docker to check them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from noria import __version__
from noria.apps.manifests.plan import HOME, USER

ROOT = Path(__file__).parent.parent.parent
FILES = sorted((ROOT / "deploy" / "docker").glob("*.Dockerfile"))


def instructions(file: Path) -> list[tuple[str, str]]:
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in joined.splitlines() if line.strip()]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.stem))
def test_an_image_is_small_pinned_and_nobody(file: Path) -> None:
    steps = instructions(file)
    froms = [words for name, words in steps if name == "FROM"]
    assert len(froms) == 2
    assert all(re.match(r"python:3\.\d+\.\d+-slim-\w+( AS \w+)?$", each) for each in froms)
    last = steps[max(number for number, step in enumerate(steps) if step[0] == "FROM") :]
    assert ("USER", f"{USER}:{USER}") in last
    assert ("WORKDIR", HOME) in last
    names = [name for name, _ in steps]
    assert {"HEALTHCHECK", "CMD"} <= set(names)
    assert "ADD" not in names
    # No step after USER needs rights, and pip stays behind in the first stage.
    assert not any(name == "RUN" and "pip" in words for name, words in last)
    for name, words in steps:
        if name == "RUN" and "pip install" in words:
            assert words.count("-c constraints.txt") == words.count("pip install")
        assert not (name in ("ENV", "ARG") and re.search(r"(?i)token|password|secret|_key", words))
    assert f":{__version__} ." in file.read_text()


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.stem))
def test_extras_exist_and_what_is_copied_is_let_in(file: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    text = file.read_text()
    wanted = re.findall(r'"\.\[([\w,]+)\]"', text)
    assert wanted
    assert set(wanted[0].split(",")) <= set(extras)
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for path in copied.split():
            assert (ROOT / path).exists()
            assert f"!{path}" in ignored
    assert "*" in ignored


def test_there_is_one_for_each_image() -> None:
    assert [file.stem for file in FILES] == ["gateway", "worker"]
