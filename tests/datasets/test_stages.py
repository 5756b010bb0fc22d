"""The stages sources, documents and dataset, run one after the other on real back-ends and small files."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow.parquet as pq
import pytest
from pydantic import JsonValue

from noria.backends.folder_lake import FolderLake
from noria.backends.fts import Indexes
from noria.backends.ledger import SqlRuns, open_engine
from noria.backends.spark import session
from noria.datasets import clean, examples
from noria.datasets.rows import read_examples
from noria.datasets.shingles import char_shingles, jaccard
from noria.errors import Invalid
from noria.lake import collect
from noria.ports import Platform
from noria.settings import load
from noria.stage import Stage, Step, run_stage
from noria.types import Artifact, Cycle, Feedback, Interaction

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.slow

START = datetime(2026, 1, 1, tzinfo=UTC)
STAGES = (
    Stage("sources", collect.work, params=collect.params, observes=collect.observes),
    Stage("documents", clean.work, reads=("sources",), params=clean.params),
    Stage("dataset", examples.work, reads=("sources", "documents"), params=examples.params, observes=examples.observes),
)
TOML = """
[project]
name = "shop"
[engines.local]
kind = "llamacpp"
model = "none"
[[sources]]
name = "chats"
kind = "csv"
path = "chats.csv"
map = { question = "question", answer = "answer", conversation = "chat" }
[[sources]]
name = "faq"
kind = "html"
path = "faq/*.html"
[tasks.help]
sources = ["chats"]
base = "none"
engine = "local"
context = { source = "faq" }
"""
PAGE = "<h1>Help</h1><h2>Returns</h2><p>Send it back within 40 days; write to returns@shop.example.com.</p>"
TOPICS = [
    "password",
    "parcel",
    "invoice",
    "voucher",
    "kettle",
    "apron",
    "repair",
    "gift",
    "colour",
    "lid",
    "oil",
    "plate",
]


class Ticks:
    """A clock that moves one second at each look."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at


class Quiet:
    """Progress that nobody watches."""

    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        assert done <= total


@dataclass
class Said:
    """Port Traffic over two lists; the mark is their lengths."""

    interactions: list[Interaction] = field(default_factory=list)
    feedback: list[Feedback] = field(default_factory=list)

    def ship(self) -> int:
        return 0

    def mark(self) -> JsonValue:
        return [len(self.interactions), len(self.feedback)]

    def read(self, mark: JsonValue) -> tuple[list[Interaction], list[Feedback]]:
        assert isinstance(mark, list)
        return self.interactions[: cast(int, mark[0])], self.feedback[: cast(int, mark[1])]

    def interaction(self, identity: str) -> Interaction | None:
        return next((one for one in self.interactions if one.id == identity), None)


@dataclass
class Wheel:
    """A project folder with its platform."""

    root: Path
    traffic: Said
    spark: SparkSession
    turns: int = 0

    def turn(self) -> dict[str, Step]:
        @contextmanager
        def spark() -> Iterator[SparkSession]:
            yield self.spark

        settings = load(self.root / "noria.toml")
        engine = open_engine("sqlite:///ledger.db", self.root)
        clock = Ticks()
        self.turns += 1
        clock.at += timedelta(days=self.turns)
        runs = SqlRuns(engine)
        used = {
            "settings": settings, "clock": clock, "lake": FolderLake(self.root / "lake"), "runs": runs,
            "indexes": Indexes(), "traffic": self.traffic, "spark": spark,
        }  # fmt: skip
        parts: dict[str, Any] = {part.name: used.get(part.name) for part in fields(Platform)}
        platform = Platform(**parts)
        cycle = f"cycle{self.turns}"
        runs.save(Cycle(id=cycle, task="help", began=clock.now()))
        done: dict[str, Artifact] = {}
        steps: dict[str, Step] = {}
        for stage in STAGES:
            step = run_stage(stage, platform, "help", settings.tasks["help"], cycle, done, Quiet())
            done[stage.name], steps[stage.name] = step.artifact, step
        engine.dispose()
        return steps

    def folder(self, step: Step) -> Path:
        return FolderLake(self.root / "lake").path(step.artifact.ref)

    def chats(self, rows: list[tuple[str, str, str]]) -> None:
        with (self.root / "chats.csv").open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.writer(stream, delimiter=";")
            writer.writerows([("chat", "question", "answer"), *rows])

    def sides(self, step: Step) -> dict[str, str]:
        rows = [row for side in ("train", "test") for row in read_examples(self.folder(step) / f"{side}.parquet")]
        return {row.id: row.split for row in rows}


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    with session("embedded") as opened:
        yield opened


@pytest.fixture
def wheel(tmp_path: Path, spark: SparkSession) -> Wheel:
    (tmp_path / "noria.toml").write_text(TOML)
    (tmp_path / "faq").mkdir()
    (tmp_path / "faq" / "help.html").write_text(PAGE)
    made = Wheel(tmp_path, Said(), spark)
    made.chats(
        [(f"c{n}", f"What about my {topic}?", f"The {topic} is fine, see page {n}.") for n, topic in enumerate(TOPICS)]
    )
    return made


def asked(number: int, question: str, answer: str = "No idea.", **changes: object) -> Interaction:
    values: dict[str, Any] = {
        "id": f"i{number}", "at": START + timedelta(minutes=number), "task": "help", "served_by": "candidate:help@0",
        "user": "u1", "conversation": f"t{number}", "messages": ({"role": "user", "content": question},),
        "context": None, "answer": answer, "finish_reason": "stop", "status": 200, "error": None, "stream": False,
        "prompt_tokens": 1, "completion_tokens": 1, "first_token_seconds": 0.1, "seconds": 0.1, "trainable": True,
    }  # fmt: skip
    return Interaction(**{**values, **changes})


def noted(number: int, value: float | None = None, correction: str | None = None, minutes: int = 0) -> Feedback:
    at = START + timedelta(minutes=number, seconds=30 + minutes)
    return Feedback(
        id=f"f{number}-{minutes}", at=at, interaction=f"i{number}", metric="thumbs", value=value, correction=correction,
        user="u1",
    )  # fmt: skip


def digests(folder: Path) -> Mapping[str, str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_a_second_turn_over_the_same_inputs_does_nothing(wheel: Wheel) -> None:
    first = wheel.turn()
    assert not any(step.skipped for step in first.values())
    assert all(step.skipped for step in wheel.turn().values())
    wheel.chats([(str(n), f"Do you sell any {topic}?", "Yes.") for n, topic in enumerate(TOPICS)])
    assert not wheel.turn()["dataset"].skipped
    assert wheel.turn()["dataset"].skipped


def test_the_same_inputs_give_the_same_bytes(wheel: Wheel, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("elsewhere")
    for name in ("noria.toml", "chats.csv", "faq/help.html"):
        (other / name).parent.mkdir(exist_ok=True)
        (other / name).write_bytes((wheel.root / name).read_bytes())
    twin = Wheel(other, Said(), wheel.spark)
    mine, theirs = wheel.turn(), twin.turn()
    for stage in mine:
        assert digests(wheel.folder(mine[stage])) == digests(twin.folder(theirs[stage])), stage
        assert mine[stage].artifact.ref == theirs[stage].artifact.ref


def test_rows_keep_their_sides_when_more_arrive(wheel: Wheel) -> None:
    rows = [(f"c{n}", f"What about my {topic}?", f"The {topic} is fine.") for n, topic in enumerate(TOPICS)]
    wheel.chats(rows)
    before = wheel.sides(wheel.turn()["dataset"])
    for extra in range(1, 4):
        rows += [
            (f"x{extra}{n}", f"What about a {topic}, number {extra}?", "See above.") for n, topic in enumerate(TOPICS)
        ]
        wheel.chats(rows)
        after = wheel.sides(wheel.turn()["dataset"])
        assert {row: after[row] for row in before} == before
        before = after


def test_no_question_has_a_near_duplicate_on_the_other_side(wheel: Wheel) -> None:
    rows = [
        (f"c{topic}{n}", wording.format(topic), f"Answer {n} about the {topic}.")
        for topic in TOPICS
        for n, wording in enumerate(("Where is my {}?", "where is my {}", "WHERE IS MY {} !!", "So, where is that {}?"))
    ]
    wheel.chats(rows)
    folder = wheel.folder(wheel.turn()["dataset"])
    train, test = (read_examples(folder / f"{side}.parquet") for side in ("train", "test"))
    assert train
    assert test
    for left in train:
        for right in test:
            assert left.conversation != right.conversation
            questions = [char_shingles(row.messages[-1].content) for row in (left, right)]
            assert jaccard(*questions) < 0.7


def test_five_rows_are_enough(wheel: Wheel) -> None:
    wheel.chats(
        [
            (str(n), f"{topic}?", f"Yes: {topic}.")
            for n, topic in enumerate(["أين طلبي", "我的订单在哪里", "मेरा पार्सल", "Où est", "Πού"])
        ]
    )
    step = wheel.turn()["dataset"]
    assert step.artifact.meta["rows"] == 5
    assert {"train", "test"} == set(wheel.sides(step).values())
    targets = {
        row.target for side in ("train", "test") for row in read_examples(wheel.folder(step) / f"{side}.parquet")
    }
    assert "Yes: 我的订单在哪里." in targets


def test_corrections_and_likes_become_examples(wheel: Wheel) -> None:
    wheel.traffic.interactions += [
        asked(1, "When do you close on Sundays?"),
        asked(2, "Is the café open?", "Yes, daily."),
        asked(3, "A private thing", trainable=False),
        asked(4, "Another task", task="other"),
        asked(5, "Disliked in the end", "Bad."),
        asked(6, "It failed", "Broken", status=500),
    ]
    wheel.traffic.feedback += [
        noted(1, correction="At one."),
        noted(1, correction="At two.", minutes=5),
        noted(2, value=1),
        noted(3, value=1, correction="Never."),
        noted(4, correction="Never."),
        noted(5, value=1),
        noted(5, value=0, minutes=5),
        noted(6, value=1),
    ]
    folder = wheel.folder(wheel.turn()["dataset"])
    rows = [row for side in ("train", "test") for row in read_examples(folder / f"{side}.parquet")]
    traffic = {(row.origin, row.messages[-1].content, row.target) for row in rows if row.slice == "traffic"}
    assert traffic == {
        ("traffic:correction", "When do you close on Sundays?", "At two."),
        ("traffic:thumbs", "Is the café open?", "Yes, daily."),
    }


def test_likes_of_one_user_count_three_times_at_most(wheel: Wheel) -> None:
    for n, topic in enumerate(TOPICS):
        wheel.traffic.interactions.append(asked(n, f"Tell me of the {topic}", f"It is a {topic}."))
        wheel.traffic.feedback.append(noted(n, value=1))
    origins = wheel.turn()["dataset"].artifact.meta["origins"]
    assert isinstance(origins, dict)
    assert origins["traffic:thumbs"] == 3


def test_personal_data_is_replaced_everywhere(wheel: Wheel) -> None:
    wheel.chats(
        [
            ("jane@shop.example.com", "I am jane@shop.example.com, who are you?", "Call 0800 555 0147."),
            ("b", "Bye now", "Bye."),
        ]
    )
    wheel.traffic.interactions.append(asked(1, "My card is 4111 1111 1111 1111, is it stored?"))
    wheel.traffic.feedback.append(noted(1, correction="No, and write to anna@shop.example.com."))
    step = wheel.turn()["dataset"]
    assert step.artifact.meta["personal_data"] == {"card": 1, "email": 3, "phone": 1}
    folder = wheel.folder(step)
    rows = [row for side in ("train", "test") for row in read_examples(folder / f"{side}.parquet")]
    text = json.dumps([row.model_dump() for row in rows])
    assert "<email>" in text
    assert "<card>" in text
    for secret in ("jane@", "anna@", "4111", "0800", "returns@"):
        assert secret not in text
        assert secret.encode() not in (folder / "index" / "index.sqlite").read_bytes()


def test_every_question_has_the_context_it_is_served_with(wheel: Wheel) -> None:
    wheel.chats([("a", "How long can I send it back?", "40 days."), ("b", "Zzz qqq", "?!"), ("c", "Returns?", "Yes.")])
    folder = wheel.folder(wheel.turn()["dataset"])
    rows = [row for side in ("train", "test") for row in read_examples(folder / f"{side}.parquet")]
    contexts = {row.messages[-1].content: row.context for row in rows}
    assert contexts["Zzz qqq"] is None
    assert contexts["Returns?"] == "Send it back within 40 days; write to <email>."


def test_steps_account_for_every_row(wheel: Wheel) -> None:
    wheel.chats([(str(n), f"Where is the {topic}?", "Here.") for n, topic in enumerate(TOPICS)] * 2 + [("q", "", "x")])
    steps = wheel.turn()
    listed = json.loads((wheel.folder(steps["dataset"]) / "steps.json").read_text())
    counts = {step["step"]: (step["in"], step["out"]) for step in listed["steps"]}
    assert counts["unicode"] == counts["length"] == (25, 25)
    assert counts["exact"] == (25, 13)
    assert counts["near"] == (13, 13)
    exact = next(step for step in listed["steps"] if step["step"] == "exact")
    assert exact["sources"] == {"chats": {"in": 24, "out": 12}, "faq": {"in": 1, "out": 1}}
    assert listed["quarantined"] == 1
    assert steps["dataset"].artifact.meta["rows"] == 12


def test_tables_hold_the_columns_that_others_read(wheel: Wheel) -> None:
    steps = wheel.turn()
    columns = {"id", "source", "text", "fields", "conversation", "file", "offset", "digest"}
    for stage in ("sources", "documents"):
        table = pq.read_table(wheel.folder(steps[stage]) / "documents.parquet")
        assert set(table.column_names) == columns
        assert table["id"].to_pylist() == sorted(table["id"].to_pylist())
    assert not any(folder.is_dir() for folder in wheel.folder(steps["documents"]).iterdir())


def test_a_task_without_any_map_is_refused_with_its_line(wheel: Wheel) -> None:
    toml = TOML.replace('map = { question = "question", answer = "answer", conversation = "chat" }\n', "")
    (wheel.root / "noria.toml").write_text(toml)
    with pytest.raises(Invalid, match="task 'help' has no examples: none of its sources has a map") as caught:
        wheel.turn()
    line = toml.splitlines().index('sources = ["chats"]') + 1
    assert caught.value.where == f"noria.toml:{line}"


def test_questions_that_are_all_alike_cannot_be_split(wheel: Wheel) -> None:
    wheel.chats([(str(n), "Where is my order?", f"Answer {topic}.") for n, topic in enumerate(TOPICS)])
    with pytest.raises(Invalid, match="has no test row"):
        wheel.turn()


def test_another_setting_goes_on_from_the_sides_that_are_there(wheel: Wheel) -> None:
    before = wheel.sides(wheel.turn()["dataset"])
    (wheel.root / "noria.toml").write_text(TOML + "test_share = 0.9\n")
    step = wheel.turn()["dataset"]
    assert not step.skipped
    assert wheel.sides(step) == before
    assert wheel.turn()["dataset"].skipped
