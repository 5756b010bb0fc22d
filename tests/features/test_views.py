"""From the features of cycles to a history and to what serves: each row once, with its time, and the same tokens."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feature_rows import START, example, platform_in, work_on
from typer.testing import CliRunner

from noria import prompts
from noria.apps import featuring
from noria.apps.cli import app
from noria.backends import plain_tokenizer
from noria.backends.fake import FakeClock
from noria.backends.fake_features import FakeFeatures
from noria.backends.feast_store import FeastStore
from noria.backends.ledger import SqlRuns, open_engine
from noria.errors import Invalid, NotFound
from noria.features import tokenise, views
from noria.ports import FeatureStore, Platform
from noria.settings import EncoderRecipe
from noria.types import Artifact, Cycle, Example, Run

DAY = timedelta(days=1)
LATER = START + 1000 * DAY
RIGHT = [101, 2129, 2064, 1045, 25141, 2026, 20786, 1029, 102]
"""The question of the documents' example with the vocabulary of bert-base-uncased."""


class Project:
    """A task whose features are made again and again."""

    def __init__(self, root: Path, store: FeatureStore) -> None:
        self._database = open_engine("sqlite:///ledger.db", root)
        self.clock = FakeClock(START + 100 * DAY)
        self.platform: Platform = platform_in(
            root, runs=SqlRuns(self._database), clock=self.clock, features=store
        )  # fmt: skip
        self._turns = 0

    def turn(self, examples: list[Example], timed: int = 0) -> datetime:
        """One more cycle; returns when its features were made."""
        self.clock.advance(86400)
        self._turns += 1
        at, cycle = self.clock.now(), f"cycle{self._turns}"
        work = work_on(self.platform, examples, timed)
        meta = dict(tokenise.work(work))
        ref = self.platform.lake.commit(work.out, "features", "help-desk")
        key = f"{self._turns:016x}"
        self.platform.runs.save(Cycle(id=cycle, task="help-desk", began=at))
        run = Run(key=key, stage="features", task="help-desk", cycle=cycle, output=ref, seconds=0, peak_mb=0, at=at)
        self.platform.runs.record(run, Artifact(ref=ref, parents=(), run_key=key, meta=meta))
        return at

    def close(self) -> None:
        self._database.dispose()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path, OnDisk())
    yield made
    made.close()


class OnDisk(FakeFeatures):
    """The fake, with a history on disk as the real one has."""

    def add(self, view: Any, rows: pa.Table, part: str) -> None:
        from noria.backends import feature_parts

        feature_parts.add(view, rows, part)
        super().add(view, rows, part)


def history(project: Project) -> list[dict[str, Any]]:
    view = views.of_task(project.platform, "help-desk")
    files = sorted(view.table.glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def test_rows_hold_from_when_they_were_said_or_seen(project: Project) -> None:
    at = project.turn([example(n) for n in range(6)], timed=2)
    view = views.present(project.platform, "help-desk")
    found = {row["input_id"]: row for row in history(project)}
    assert len(found) == 6
    assert found[example(0).id]["event_timestamp"] == START
    assert found[example(1).id]["event_timestamp"] == START + DAY
    assert found[example(2).id]["event_timestamp"] == at
    assert {row["created"] for row in found.values()} == {at}
    assert json.loads(found[example(3).id]["meta"]) == {
        "task": "help-desk", "origin": "source:faq", "slice": "task", "split": "train", "document": "d" * 16,
    }  # fmt: skip
    assert view.tags["tokenizer"] == project.platform.tokenizer(Path()).digest


def test_a_head_has_no_features_of_tokens(project: Project) -> None:
    task = project.platform.settings.tasks["help-desk"].model_copy(update={"recipe": EncoderRecipe()})
    settings = project.platform.settings.model_copy(update={"tasks": {"help-desk": task}})
    with pytest.raises(Invalid, match="task 'help-desk' has no features of tokens: its recipe 'encoder'"):
        featuring.show(replace(project.platform, settings=settings), None)


def test_only_what_changed_comes_into_the_history_again(project: Project) -> None:
    first = project.turn([example(n) for n in range(6)], timed=2)
    views.present(project.platform, "help-desk")
    second = project.turn([example(0, "now with context"), *(example(n) for n in range(1, 8))], timed=2)
    assert views.publish(project.platform, "help-desk", views.of_task(project.platform, "help-desk")) == 3
    rows = [row for row in history(project) if row["input_id"] == example(0).id]
    assert sorted(row["event_timestamp"] for row in rows) == [START, second]
    assert views.publish(project.platform, "help-desk", views.of_task(project.platform, "help-desk")) == 0
    told = featuring.past(project.platform, None, [example(0).id], first, None)
    before = told["features"][0]["token_ids"]
    told = featuring.past(project.platform, None, [example(0).id], second, None)
    assert len(told["features"][0]["token_ids"]) > len(before)


def test_offline_online_training_and_serving_have_the_same_tokens(project: Project) -> None:
    examples = [example(n, "context ü" if n % 2 else None) for n in range(8)]
    project.turn(examples)
    featuring.materialize(project.platform, None, None, None)
    ids = [each.id for each in examples]
    online = {row["input_id"]: row for row in featuring.online(project.platform, None, ids)}
    offline = featuring.past(project.platform, None, ids, LATER, None)["features"]
    tokenizer, (_, task) = project.platform.tokenizer(Path()), project.platform.settings.task(None)
    for row, each in zip(offline, examples, strict=True):
        served = tokenizer.prompt(prompts.render(task.system, each.messages, each.context))
        answer = tokenizer.answer(prompts.answer_part(each.target))
        assert row["token_ids"] == online[each.id]["token_ids"] == served + answer
        assert row["loss_mask"] == online[each.id]["loss_mask"] == [0] * len(served) + [1] * len(answer)


def test_another_prompt_is_another_version(project: Project) -> None:
    project.turn([example(1)])
    views.present(project.platform, "help-desk")
    old = views.of_task(project.platform, "help-desk")
    settings = project.platform.settings
    task = settings.tasks["help-desk"].model_copy(update={"system": "Be brief."})
    other = replace(project.platform, settings=settings.model_copy(update={"tasks": {"help-desk": task}}))
    view = views.of_task(other, "help-desk")
    assert view.project != old.project
    assert view.table != old.table
    with pytest.raises(NotFound, match="present tokenizer and prompt"):
        views.present(other, "help-desk")


def test_forgotten_examples_leave_every_version(project: Project) -> None:
    project.turn([example(1), example(2)])
    featuring.materialize(project.platform, None, None, None)
    assert views.forget(project.platform, []) == 0
    assert views.forget(project.platform, [example(1).id]) == 1
    with pytest.raises(NotFound):
        featuring.online(project.platform, None, [example(1).id])
    assert [row["input_id"] for row in featuring.online(project.platform, None, [example(2).id])] == [example(2).id]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{}", "no 'input_id'"),
        ("x", "neither JSON"),
        ("[]", "no rows"),
        ('{"input_id": ["1", "2"], "token_ids": [[1]]}', "one length"),
        ('[{"input_id": "1", "token_ids": []}]', "no list of whole numbers"),
        ('[{"input_id": true, "token_ids": [1]}]', "no 'input_id'"),
        ('[{"input_id": "1", "token_ids": [1], "attention_mask": [1, 1]}]', "does not fit its 1 tokens"),
        ('[{"input_id": "1", "token_ids": [1], "loss_mask": [2]}]', "does not fit its 1 tokens"),
        ('[{"input_id": "1", "token_ids": [1], "colour": 1}]', "unknown column 'colour'"),
        ('[{"input_id": "1", "token_ids": [1], "event_timestamp": "soon"}]', "the time 'soon'"),
    ],
)
def test_faulty_rows_are_refused_and_nothing_is_pushed(project: Project, text: str, match: str) -> None:
    file = project.platform.settings.root / "rows.json"
    file.write_text(text)
    with pytest.raises(Invalid, match=match):
        featuring.push(project.platform, None, file, keep=True)
    assert not history(project)


def test_the_question_of_the_documents_has_the_right_ids() -> None:
    file = plain_tokenizer.found("bert-base-uncased")
    made = plain_tokenizer.encode(file, "How can I reset my password?", 512)
    assert made["token_ids"] == RIGHT + [0] * (512 - len(RIGHT))
    assert made["attention_mask"] == [1] * 9 + [0] * 503
    assert plain_tokenizer.encode(file, "How can I reset my password?", 0)["token_ids"] == RIGHT
    assert len(plain_tokenizer.encode(file, "password " * 600, 512)["token_ids"]) == 512
    with pytest.raises(NotFound, match="no tokenizer 'nowhere'"):
        plain_tokenizer.found("nowhere")


@pytest.mark.slow
def test_the_documents_own_example_works_on_feast(tmp_path: Path) -> None:
    (tmp_path / "b1.json").write_text(json.dumps({
        "input_id": [123, 124], "token_ids": [[101, 2129, 2064], [101, 2023, 2003]],
        "attention_mask": [[1, 1, 1], [1, 1, 1]], "meta": ["example1", "example2"],
        "event_timestamp": ["2026-01-31T12:00:00Z"] * 2,
    }))  # fmt: skip
    with contextlib.closing(FeastStore("sqlite:///online.db", tmp_path, tmp_path / "state")) as store:
        project = Project(tmp_path, store)
        project.turn([example(1)])
        told = featuring.push(project.platform, None, tmp_path / "b1.json", keep=True)
        assert (told["pushed"], told["kept"]) == (2, True)
        (row,) = featuring.online(project.platform, None, ["123"])
        assert (row["token_ids"], row["attention_mask"], row["meta"]) == ([101, 2129, 2064], [1, 1, 1], "example1")
        assert featuring.materialize(project.platform, None, None, LATER)["online"] == 3
        offline = featuring.past(project.platform, None, ["124", "123"], LATER, None)["features"]
        assert [each["token_ids"] for each in offline] == [[101, 2023, 2003], [101, 2129, 2064]]
        with pytest.raises(NotFound, match="no row '123'"):
            featuring.past(project.platform, None, ["123"], START, None)
        found = featuring.past(project.platform, None, [], LATER, tmp_path / "all.parquet")
        assert pq.read_table(tmp_path / "all.parquet").num_rows == found["rows"] == 3
        assert featuring.remove(project.platform, None, ["123"])["rows"] == 1
        with pytest.raises(NotFound, match="no row '123'"):
            featuring.online(project.platform, None, ["123"])
        assert featuring.show(project.platform, None)["ids"] == 2
        project.close()


def test_the_commands_say_what_they_want() -> None:
    runner = CliRunner()
    told = runner.invoke(app, ["features", "--help"])
    assert told.exit_code == 0
    for verb in ("show", "get", "materialize", "push", "remove", "encode"):
        assert verb in told.output
    assert isinstance(runner.invoke(app, ["features", "get"]).exception, Invalid)
    assert isinstance(runner.invoke(app, ["features", "get", "--at", "soon"]).exception, Invalid)
