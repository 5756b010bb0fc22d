"""tasks.NAME.clean: names, tables, and what is said where one is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from noria.errors import Invalid
from noria.settings import CLEANING, STEPS, Settings, TaskSettings, load, options_of

TOML = """
[project]
name = "shop"
[engines.local]
kind = "llamacpp"
model = "none"
[[sources]]
name = "faq"
kind = "text"
path = "*.txt"
[tasks.help]
sources = ["faq"]
base = "none"
engine = "local"
clean = {clean}
"""


def loaded(folder: Path, clean: str) -> Settings:
    (folder / "noria.toml").write_text(TOML.format(clean=clean))
    return load(folder / "noria.toml")


def test_steps_are_names_or_tables(tmp_path: Path) -> None:
    clean = '["unicode", { step = "length", min_chars = 20 }, { step = "repetition", top = { 2 = 0.5 } }]'
    task = loaded(tmp_path, clean).tasks["help"]
    assert [step.step for step in task.clean] == ["unicode", "length", "repetition"]
    assert options_of(task.clean[1])["min_chars"] == 20
    assert options_of(task.clean[2])["top"] == {2: 0.5}
    assert TaskSettings.model_validate(task.model_dump(mode="json")) == task


def test_a_task_that_says_nothing_has_the_default(tmp_path: Path) -> None:
    task = loaded(tmp_path, "[]").tasks["help"]
    assert task.clean == ()
    whole = TaskSettings(sources=("faq",), base="none", engine="local")
    assert whole.clean == CLEANING
    assert [step.step for step in CLEANING] == ["unicode", "whitespace", "boilerplate", "length", "exact", "near"]
    assert {step.step for step in CLEANING} <= STEPS.keys()


@pytest.mark.parametrize(
    ("clean", "fact", "hint"),
    [
        ('["lenght"]', "there is no step 'lenght'", "did you mean 'length'?"),
        ('["semantic"]', "step 'semantic' needs 'engine'", '{ step = "semantic", engine = … }'),
        ('[{ step = "semantic", engine = "nobody" }]', "wants engine 'nobody'", "known are: local"),
        ('[{ step = "semantic", engine = "local", similarity = 0.2 }]', "similarity", "correct that option"),
        ('["qqqq"]', "there is no step 'qqqq'", "known are: boilerplate, booklet-regex, c4,"),
        (
            '[{ step = "length", min_char = 3 }]',
            "step 'length' has no option 'min_char'",
            "did you mean 'min_chars'?",
        ),
        ('["unicode", { step = "language" }]', "step 'language' needs 'keep'", '{ step = "language", keep = … }'),
        ('[{ step = "length", min_chars = -1 }]', "step 'length', min_chars: Input should be greater", "correct that"),
        ("[3]", "a step is a name, or a table with its name", 'write "length" or'),
    ],
)
def test_a_wrong_step_is_explained_with_its_line(tmp_path: Path, clean: str, fact: str, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        loaded(tmp_path, clean)
    assert fact in caught.value.fact
    assert caught.value.hint.startswith(hint)
    assert caught.value.where == f"noria.toml:{TOML.splitlines().index('clean = {clean}') + 1}"
