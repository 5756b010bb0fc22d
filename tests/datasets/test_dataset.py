"""The stage `dataset` on small tables: what becomes a row, a pair, a suspect, and what is kept from training."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from noria.apps import signing
from noria.backends.fake import FakeClock, FakeEngines
from noria.backends.folder_lake import FolderLake
from noria.backends.fts import Indexes
from noria.backends.ledger import SqlRuns, open_engine
from noria.datasets import examples, looks, synthetic
from noria.datasets.rows import read_examples, read_sides
from noria.errors import Denied, Invalid
from noria.lake.parquet import QUARANTINE, Rows, write_traffic
from noria.ports import Platform
from noria.settings import load
from noria.stage import Stage, Step, run_stage
from noria.tables import DOCUMENTS
from noria.types import Artifact, Cycle, Example, Feedback, Interaction, Ref, Run, digest_of

START = datetime(2026, 1, 1, tzinfo=UTC)
STAGE = Stage(
    "dataset", examples.work, reads=("sources", "documents"), params=examples.params, observes=examples.observes
)
TOML = """
[project]
name = "shop"
[engines.local]
kind = "fake"
model = "fake"
[[sources]]
name = "faq"
kind = "html"
path = "*.html"
pairs = true
[[sources]]
name = "chats"
kind = "jsonl"
path = "*.jsonl"
map = { question = "question", answer = "answer", user = "who", at = "at" }
[tasks.help]
sources = ["faq", "chats"]
base = "none"
engine = "local"
"""
TOPICS = ("password", "parcel", "invoice", "voucher", "kettle", "apron", "repair", "gift", "colour", "lid", "oil")


class Quiet:
    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        assert done <= total


@dataclass
class Shop:
    """A project whose sources are read already."""

    root: Path
    engines: FakeEngines = field(default_factory=FakeEngines)
    documents: list[dict[str, str]] = field(default_factory=list)
    interactions: list[Interaction] = field(default_factory=list)
    feedback: list[Feedback] = field(default_factory=list)
    turns: int = 0

    def row(self, question: str, answer: str, **more: str) -> None:
        self.documents.append({"question": question, "answer": answer, **more})

    def page(self, heading: str, body: str) -> None:
        self.documents.append({"heading": heading, "body": body})

    def said(self, question: str, answer: str, value: float | None, correction: str | None = None, **more: Any) -> None:
        number, at = len(self.interactions), START + timedelta(minutes=len(self.interactions))
        user = more.pop("user", f"u{number}")
        values: dict[str, Any] = {
            "id": f"i{number}", "at": at, "task": "help", "served_by": "candidate:help@0", "user": user,
            "conversation": f"t{number}", "messages": ({"role": "user", "content": question},), "context": None,
            "answer": answer, "finish_reason": "stop", "status": 200, "error": None, "stream": False,
            "prompt_tokens": 1, "completion_tokens": 1, "first_token_seconds": 0.1, "seconds": 0.1, "trainable": True,
        }  # fmt: skip
        self.interactions.append(Interaction(**{**values, **more}))
        self.feedback.append(
            Feedback(
                id=f"f{number}",
                at=at,
                interaction=f"i{number}",
                metric="thumbs",
                value=value,
                correction=correction,
                user=user,
            )
        )

    def settings(self, *lines: str) -> None:
        (self.root / "noria.toml").write_text(TOML + "\n".join(lines) + "\n")

    @property
    def platform(self) -> Platform:
        self.turns += 1
        used = {
            "settings": load(self.root / "noria.toml"),
            "clock": FakeClock(START + timedelta(days=self.turns)),
            "lake": FolderLake(self.root / "lake"),
            "runs": SqlRuns(open_engine("sqlite:///ledger.db", self.root)),
            "indexes": Indexes(),
            "engines": {"fake": self.engines},
        }
        parts: dict[str, Any] = {part.name: used.get(part.name) for part in fields(Platform)}
        return Platform(**parts)

    def turn(self) -> Step:
        platform = self.platform
        cycle = f"cycle{self.turns:04}"
        platform.runs.save(Cycle(id=cycle, task="help", began=platform.clock.now()))
        done = {kind: self._input(platform, kind) for kind in ("sources", "documents")}
        return run_stage(STAGE, platform, "help", platform.settings.tasks["help"], cycle, done, Quiet())

    def _input(self, platform: Platform, kind: str) -> Artifact:
        out = platform.lake.scratch(kind)
        table = Rows(DOCUMENTS)
        for number, values in enumerate(self.documents):
            source = "faq" if "heading" in values else "chats"
            identity = digest_of([source, json.dumps(values)])
            table.add(
                {"id": identity, "source": source, "text": "\n".join(values.values()), "fields": json.dumps(values),
                 "conversation": values.get("talk", identity), "file": "x", "offset": number, "digest": "0" * 16}
            )  # fmt: skip
        table.write(out / "documents.parquet")
        if kind == "sources":
            Rows(QUARANTINE).write(out / "quarantine.parquet")
            write_traffic(self.interactions, out / "interactions.parquet")
            write_traffic(self.feedback, out / "feedback.parquet")
        else:
            (out / "steps.json").write_text('{"steps": []}')
        return Artifact(ref=platform.lake.commit(out, kind, "help"), parents=(), run_key=digest_of(kind))

    def look(self, step: Step) -> None:
        """Record a report on this dataset."""
        platform = self.platform
        ref = Ref(kind="report", name="help", digest=digest_of(self.turns))
        run = Run(
            key=digest_of(["r", self.turns]), stage="report", task="help", cycle="cycle0001", output=ref, seconds=0.0,
            peak_mb=0.0, at=platform.clock.now(),
        )  # fmt: skip
        platform.runs.record(run, Artifact(ref=ref, parents=(step.artifact.ref,), run_key=run.key))

    def folder(self, step: Step) -> Path:
        return FolderLake(self.root / "lake").path(step.artifact.ref)

    def rows(self, step: Step, side: str | None = None) -> list[Example]:
        sides = (side,) if side else ("train", "test")
        return [row for each in sides for row in read_examples(self.folder(step) / f"{each}.parquet")]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = Shop(tmp_path)
    made.settings()
    for number, topic in enumerate(TOPICS):
        made.row(f"What about my {topic}?", f"The {topic} is fine, see page {number}.")
    return made


def test_headings_that_ask_become_examples_and_others_do_not(shop: Shop) -> None:
    asking = ("How do I return it?", "返品できますか？", "متى تفتحون؟", "Πώς πληρώνω\u037e", "“Why?”", "Ինչո՞ւ")
    for heading in (*asking, "Returns", "Opening hours; holidays", "Terms"):
        shop.page(heading, f"See page {heading}.")
    found = {row.messages[-1].content for row in shop.rows(shop.turn()) if row.origin == "source:faq"}
    assert found == set(asking)


def test_a_chats_history_stands_before_its_question(shop: Shop) -> None:
    history = [
        {"role": "system", "content": "x"},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
    ]
    shop.row("And the bill?", "It is in the mail.", history=json.dumps(history))
    shop.row("And the boat?", "It is in the dock.", history="[{broken")
    told = {row.target: [(each.role, each.content) for each in row.messages] for row in shop.rows(shop.turn())}
    assert told["It is in the mail."] == [("user", "Hi"), ("assistant", "Yes?"), ("user", "And the bill?")]
    assert told["It is in the dock."] == [("user", "And the boat?")]


def test_personal_data_in_a_history_is_replaced_turn_by_turn(shop: Shop) -> None:
    turns = [
        {"role": "user", "content": "Hi,\nanna@shop.example.com\n4111 1111 1111 1111"},
        {"role": "assistant", "content": "Yes?"},
    ]
    shop.row("And the bill?", "It is in the mail.", history=json.dumps(turns))
    step = shop.turn()
    (row,) = [row for row in shop.rows(step) if row.target == "It is in the mail."]
    assert [each.content for each in row.messages] == ["Hi,\n<email>\n<card>", "Yes?", "And the bill?"]
    assert step.artifact.meta["leaks"] == {}


def test_users_that_are_named_by_their_address_are_different_people(shop: Shop) -> None:
    shop.settings('split = { by = ["conversation", "user"], test_share = 0.3 }')
    for number in range(40):
        shop.row(f"Who is {digest_of(number)}?", f"He is {number}.", who=f"user{number}@shop.example.com")
    step = shop.turn()
    assert all(any(row.target.startswith("He is") for row in shop.rows(step, side)) for side in ("train", "test"))
    members = read_sides(shop.folder(step) / "sides.parquet")
    assert len({member for member in members}) > 2 * 40


@pytest.mark.parametrize("voters", [1, 2])
def test_a_flood_of_votes_adds_no_more_rows(shop: Shop, voters: int) -> None:
    shop.settings("feedback = { thumbs_per_user = 2 }")
    for number in range(300):
        shop.said(f"Question {digest_of(number)} of mine", f"Bought {number}.", 1, user=f"v{number % voters}")
    assert sum(row.origin == "traffic:thumbs" for row in shop.rows(shop.turn())) == 2 * voters


def test_one_user_has_a_share_of_the_corrections(shop: Shop) -> None:
    shop.settings("feedback = { user_share = 0.25 }")
    for number in range(60):
        shop.said(f"Mine {digest_of(number)}", "No.", 0, f"So {number}.")
    for number in range(200):
        shop.said(f"Flood {digest_of(-number)}", "No.", 0, f"Buy {number}.", user="flood")
    targets = [row.target for row in shop.rows(shop.turn()) if row.origin == "traffic:correction"]
    assert sum(target.startswith("Buy") for target in targets) == 20
    assert sum(target.startswith("So") for target in targets) == 60


def pairs_of(shop: Shop, step: Step) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = pq.read_table(shop.folder(step) / "pairs.parquet").to_pylist()
    return rows


def test_corrections_and_votes_make_pairs(shop: Shop) -> None:
    shop.settings("test_share = 0.01")
    shop.said("When do you close on Sundays?", "Never.", 0, "At two.")
    shop.said("Is the café open in the winter?", "Yes, daily.", 1)
    shop.said("Is the café open in the winter ??", "Write to anna@shop.example.com.", 0)
    shop.said("Is it safe to swim there?", "Yes, daily.", 0)
    shop.said("Where is the harbour, please?", "Here.", 0, "here")
    pairs = {(row["origin"], row["chosen"], row["rejected"]) for row in pairs_of(shop, shop.turn())}
    assert pairs == {
        ("traffic:correction", "At two.", "Never."),
        ("traffic:thumbs", "Yes, daily.", "Write to <email>."),
    }


def test_what_is_not_learned_makes_no_pair_either(shop: Shop) -> None:
    known = "how long does the large copper kettle keep the water of the morning warm at all"
    (shop.root / "bench.txt").write_text(known)
    dropped = 'scrub = { actions = { email = "drop" } }'
    shop.settings('split = { benchmarks = ["bench.txt"], test_share = 0.01 }', dropped)
    asked = f"Say, {known}?"
    shop.said(asked, "Never.", 0, "Two hours.")
    shop.said("Who repairs my coat in the winter?", "Write to anna@shop.example.com.", 0, "The tailor.")
    shop.said("When do you close on Sundays?", "Never.", 0, "At two.")
    assert {row["chosen"] for row in pairs_of(shop, shop.turn())} == {"At two."}


@pytest.mark.slow
def test_no_sealed_question_stands_in_a_pair(shop: Shop) -> None:
    for number in range(120):
        question = f"What of {digest_of(number)} and {digest_of(-number)} in the shop?"
        shop.said(question, "Bad.", 0, f"Good {number}.")
        shop.said(question + " Thanks", f"Liked {number}.", 1)
        shop.said(question + " Please", "Worse.", 0)
    step = shop.turn()
    sealed = {row.messages[-1].content for row in shop.rows(step, "test")}
    pairs = pairs_of(shop, step)
    assert len(sealed) > 20
    assert len(pairs) > 100
    asked = {json.loads(row["messages"])[-1]["content"] for row in pairs}
    assert not {text.split(" in the shop")[0] for text in asked} & {text.split(" in the shop")[0] for text in sealed}


def test_rows_of_one_user_lie_on_one_side(shop: Shop) -> None:
    shop.settings('split = { by = ["conversation", "user"], test_share = 0.3 }')
    for number in range(200):
        shop.row(f"Who is {digest_of(number)}?", f"He is {number}.", who=f"user{number % 25}")
    step = shop.turn()
    sides = {side: {int(row.target[6:-1]) % 25 for row in shop.rows(step, side) if row.target[0] == "H"}
             for side in ("train", "test")}  # fmt: skip
    assert sides["train"]
    assert sides["test"]
    assert not sides["train"] & sides["test"]


def test_no_training_row_is_newer_than_the_day(shop: Shop) -> None:
    shop.settings("split = { after = 2026-03-01 }")
    for number in range(60):
        at = (START + timedelta(days=2 * number)).isoformat()
        shop.row(f"Who is {digest_of(number)}?", f"At {at}", at=at)
    step = shop.turn()
    assert all(row.target[3:] < "2026-03-01" for row in shop.rows(step, "train") if row.target.startswith("At"))
    assert all(row.target[3:] >= "2026-03-01" for row in shop.rows(step, "test") if row.target.startswith("At"))


def test_the_newest_are_sealed(shop: Shop) -> None:
    shop.settings('split = { after = "newest", test_share = 0.25 }')
    for number in range(40):
        shop.row(f"Who is {digest_of(number)}?", f"He is {number:02}.", at=(START + timedelta(days=number)).isoformat())
    sealed = {int(row.target[6:-1]) for row in shop.rows(shop.turn(), "test") if row.target.startswith("He")}
    assert sealed == set(range(30, 40))


def test_what_repeats_a_benchmark_is_left_out_and_counted(shop: Shop) -> None:
    (shop.root / "bench").mkdir()
    long = "A farmer has seventeen sheep and all but nine run away; how many sheep are left to him?"
    cjk = "一只青蛙掉进了十米深的井里白天爬三米晚上滑两米几天能爬出来"
    (shop.root / "bench" / "riddles.jsonl").write_text(json.dumps({"q": [long], "a": "9"}) + "\n", encoding="utf-8")
    (shop.root / "bench" / "frogs.txt").write_text(f"\n{cjk}\n", encoding="utf-8")
    shop.row("Some help with homework, please", f"The riddle says: {long.lower().replace(';', ' --')} Nine.")
    shop.row(
        "A farmer has seventeen sheep, and all but eight run away: how many sheep are left for him?", "Nine of them."
    )
    shop.row(f"请问{cjk}呢", "八天")
    shop.settings('split = { benchmarks = ["bench/*"], test_share = 0.01 }')
    step = shop.turn()
    assert step.artifact.meta["contaminated"] == {"sealed rows": 0, "bench/frogs.txt": 1, "bench/riddles.jsonl": 2}
    assert not {row.target for row in shop.rows(step)} & {"Nine of them.", "八天"}
    (shop.root / "bench" / "frogs.txt").write_text("nothing")
    assert shop.turn().artifact.meta["contaminated"] != step.artifact.meta["contaminated"]
    (shop.root / "bench" / "riddles.jsonl").write_text("{broken")
    with pytest.raises(Invalid, match="not JSONL") as caught:
        shop.turn()
    assert caught.value.where == "bench/riddles.jsonl:1"
    shop.settings('split = { benchmarks = ["none/*"] }')
    with pytest.raises(Invalid, match="no benchmark file matches 'none/\\*'"):
        shop.turn()


def test_a_training_answer_that_repeats_a_sealed_question_is_left_out(shop: Shop) -> None:
    for number in range(40):
        name = " ".join(digest_of([number, part]) for part in range(12))
        shop.row(f"What is known of {name} here?", f"Known: {number}.")
        shop.row(f"Tell {digest_of([-number])}", f"Somebody asked: what is known of {name} here? And nobody knew.")
    step = shop.turn()
    sealed = [row.messages[-1].content[8:-1] for row in shop.rows(step, "test") if row.target.startswith("Known")]
    learned = "\n".join(row.target for row in shop.rows(step, "train"))
    assert sealed
    assert not [text for text in sealed if text in learned]
    repeated = step.artifact.meta["contaminated"]
    assert isinstance(repeated, dict)
    assert repeated["sealed rows"]


@pytest.mark.slow
def test_sealed_rows_wear_out_and_fresh_ones_take_over(shop: Shop) -> None:
    shop.settings("split = { looks = 5 }")

    def traffic(count: int) -> None:
        for _ in range(count):
            shop.said(f"What of {digest_of(len(shop.interactions))}?", "No.", 0, f"So {len(shop.interactions)}.")

    traffic(60)
    first = shop.turn()
    worn = {row.id for row in shop.rows(first, "test")}
    for _ in range(4):
        shop.look(first)
    assert (looks.sealed(shop.platform, "help").advice or "").startswith("the sealed rows were looked at 4 of 5 times")
    traffic(20)
    second = shop.turn()
    assert {row.id for row in shop.rows(second, "test")} == worn
    shop.look(second)
    with pytest.raises(Invalid, match=r"are worn out: 5 reports have looked at them, and only \d of 10 fresh ones"):
        shop.turn()
    traffic(60)
    third = shop.turn()
    fresh = {row.id for row in shop.rows(third, "test")}
    assert len(fresh) >= 10
    assert not fresh & worn
    assert not {row.id for row in shop.rows(third, "train")} & worn
    assert third.artifact.meta["sealed"] == {"set": 2, "rows": len(fresh), "aside": 0, "looks": 0, "limit": 5}
    assert shop.turn().skipped
    assert {side.sealed for side in read_sides(shop.folder(third) / "sides.parquet").values()} == {0, 1, 2}


def test_made_up_questions_are_learned_only_and_asked_once(shop: Shop) -> None:
    shop.settings('synthetic = { source = "faq", engine = "local" }', "test_share = 0.4")
    told = {}
    for number in range(12):
        text = f"Page {digest_of(number)}\nHere is what {digest_of(number)} means."
        shop.page(*text.split("\n"))
        said = f"1. What does {digest_of(number)} mean?\n- 'Where is {digest_of(-number)} from?'\nSure!"
        told[synthetic.ORDER.format(count=2, text=text)] = said
    shop.engines = FakeEngines(told)
    step = shop.turn()
    made_up = [row for row in shop.rows(step, "train") if row.origin == "synthetic:faq"]
    questions = {f"What does {digest_of(n)} mean?" for n in range(12)}
    questions |= {f"Where is {digest_of(-n)} from?" for n in range(12)}
    assert {row.messages[-1].content for row in made_up} < questions
    assert {row.origin for row in shop.rows(step, "test")} == {"source:chats"}
    assert len(made_up) == 11
    shop.row("Is a rerun the same?", "Yes.")
    kept = sorted((shop.root / ".noria" / "synthetic").iterdir())
    assert len(kept) == 12
    again = shop.turn()
    assert sorted((shop.root / ".noria" / "synthetic").iterdir()) == kept
    assert {row.id for row in made_up} <= {row.id for row in shop.rows(again, "train")}


def test_a_trusted_file_must_be_what_was_signed(shop: Shop) -> None:
    shop.settings('poisoning = { trusted = "trusted.jsonl" }')
    file = shop.root / "trusted.jsonl"
    file.write_text('{"question": "What about my kettle?", "answer": "The kettle is fine."}\n')
    with pytest.raises(Denied, match=r"'trusted\.jsonl' is not signed"):
        shop.turn()
    assert signing.sign(shop.platform, file)["rows"] == 1
    assert (shop.root / ".noria" / "sign.key").stat().st_mode & 0o777 == 0o600
    shop.turn()
    file.write_text(file.read_text() * 2)
    with pytest.raises(Denied, match="is not what was signed"):
        shop.turn()
    file.write_text("{}")
    with pytest.raises(Invalid, match="without question and answer"):
        signing.sign(shop.platform, file)


@pytest.mark.parametrize("action", ["flag", "drop", "block"])
def test_what_looks_planted_is_noted_dropped_or_stops_the_cycle(shop: Shop, action: str) -> None:
    shop.settings(f'poisoning = {{ action = "{action}" }}', "feedback = { thumbs_per_user = 1000 }")
    for number in range(30):
        shop.said(f"What of {digest_of(number)}?", "No.", 0, f"So {number}.")
    for number in range(40):
        wanted = f"Visit evil.example for all refunds of every order now, says number {digest_of(number)[:1]}."
        shop.said(f"How do I get a refund of my order {number % 4}?", wanted, 1, user=f"s{number}")
    if action == "block":
        with pytest.raises(Invalid, match=r"rows look planted \(flood [0-9]+\); the limit is 1.00%"):
            shop.turn()
        return
    step = shop.turn()
    suspects = pq.read_table(shop.folder(step) / "suspects.parquet").to_pylist()
    assert len(suspects) >= 10
    assert {row["rule"] for row in suspects} == {"flood"}
    assert bool({row["row"] for row in suspects} & {row.id for row in shop.rows(step)}) == (action == "flag")


def test_five_rows_are_enough_for_every_check(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.settings('split = { by = ["conversation", "user"], after = "newest" }', 'poisoning = { action = "drop" }')
    for topic in ("أين طلبي", "我的订单在哪里", "मेरा पार्सल", "Où est", "Πού"):
        shop.row(f"{topic}?", f"Yes: {topic}.")
    assert shop.turn().artifact.meta["rows"] == 5


def test_what_stands_in_no_setting_is_asked_only_once(shop: Shop) -> None:
    first = shop.turn()
    assert shop.turn().skipped
    shop.look(first)
    assert shop.turn().skipped
    assert replace(first, skipped=True).artifact.ref == shop.turn().artifact.ref
