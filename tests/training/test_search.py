"""The search for words: how much is asked, who wins, what is refused; on a bench that answers from a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from noria import adapters
from noria.apps import start
from noria.backends.fake import FakeEngines
from noria.datasets.rows import write_examples
from noria.errors import Invalid
from noria.ports import Platform
from noria.stage import Look, Work
from noria.training import adapter, search
from noria.training.search import Bench, Option
from noria.types import Artifact, Example, Message, Ref, Wording, digest_of
from noria.wiring import open_project


@dataclass
class Table:
    """A bench on which a wording's worth is told by a function; counts the rows that are asked."""

    worth: Callable[[Wording | None, Sequence[Example]], float]
    says: list[str] = field(default_factory=list)
    falls: bool = False
    seen: list[tuple[Wording | None, int]] = field(default_factory=list)

    def value(self, wording: Wording | None, rows: Sequence[Example], label: str) -> float:
        self.seen.append((wording, len(rows)))
        return self.worth(wording, rows)

    def told(self, value: float) -> float:
        return -value if self.falls else value

    def ask(self, messages: Sequence[Message]) -> str:
        return self.says.pop(0)


class Noted:
    """Tracking that keeps names of files only."""

    def __init__(self) -> None:
        self.files: list[str] = []

    def log(
        self, experiment: str, name: str, run: Mapping[str, JsonValue], curves: Mapping[str, Sequence[float]],
        files: Sequence[Path], parent: str | None = None,
    ) -> str:  # fmt: skip
        self.files += [file.name for file in files]
        return "run"


class Words:
    """A tokenizer for which a word is a token."""

    digest = "words"

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        return [0] * sum(2 + len(message.content.split()) for message in messages)

    def answer(self, text: str) -> list[int]:
        return [0] * len(text.split())


class Silent:
    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        pass


def row(number: int, conversation: str = "", of: str = "task", origin: str = "source:faq") -> Example:
    return Example(
        id=digest_of(number), origin=origin, slice=of, conversation=conversation or f"c{number}", context=None,
        messages=(Message(role="user", content=f"What is the number {number}?"),), target=f"It is {number}.",
        split="train",
    )  # fmt: skip


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(4, 64))
def test_the_best_wins_and_halving_asks_less_than_everything(worths: list[float], count: int) -> None:
    options = [Option(str(number), Wording(system=str(number))) for number in range(len(worths))]
    bench = Table(lambda wording, rows: worths[int(str(wording.system if wording else 0))])
    rows = [row(number) for number in range(count)]
    tried = search.best(options, rows, bench)
    assert tried[0].option.how == str(worths.index(max(worths)))
    assert tried[0].rows == count
    assert sorted(int(each.option.how) for each in tried) == list(range(len(worths)))
    most: dict[Wording | None, int] = {}
    for wording, asked in bench.seen:
        most[wording] = max(most.get(wording, 0), asked)
    # Rows that were asked once are known: what counts is how far each wording came.
    assert sum(most.values()) <= len(worths) * max(search.FIRST, count)
    if len(worths) >= 8 and count >= 32:
        assert sum(most.values()) <= 0.75 * len(worths) * count


def project(folder: Path, recipe: str, **more: str) -> Platform:
    start.make(folder)
    file = folder / "noria.toml"
    lines = [f"recipe = {recipe}" if line.startswith("recipe") else line for line in file.read_text().splitlines()]
    text = "\n".join(line for line in lines if not line.startswith("context = {"))
    for old, new in more.items():
        text = text.replace(old, new)
    file.write_text(text + "\n")
    return replace(
        open_project(folder), engines={"llamacpp": FakeEngines()}, tracking=Noted(), tokenizer=lambda model: Words(),
    )  # fmt: skip


def made(platform: Platform, rows: Sequence[Example], bench: Bench, tokens: int = 40) -> tuple[Path, dict[str, object]]:
    """The stage `adapter` on these rows."""
    name, task = platform.settings.task(None)

    def commit(kind: str, write: Callable[[Path], None]) -> Ref:
        folder = platform.lake.scratch(kind)
        write(folder)
        return platform.lake.commit(folder, kind, name)

    dataset = commit("dataset", lambda folder: write_examples(rows, folder / "train.parquet"))
    table = pa.table({"id": [each.id for each in rows], "tokens": [tokens] * len(rows)})
    features = commit("features", lambda folder: pq.write_table(table, folder / "features.parquet"))
    inputs = {"features": Artifact(ref=features, parents=(dataset,), run_key="f" * 16)}
    look = Look(platform, name, task, inputs)
    adapter.check(look)
    assert adapter.observes(look) is None
    out = platform.lake.scratch("out")

    def opened(work: Work) -> AbstractContextManager[Bench]:
        return nullcontext(bench)

    return out, {**adapter.work(Work(platform, name, task, "cycle", inputs, None, out, Silent()), opened)}


def test_few_shot_writes_the_best_examples_and_what_was_tried(tmp_path: Path) -> None:
    rows = [row(number, of="task" if number < 30 else "general") for number in range(40)]
    bench = Table(lambda wording, rows: len(wording.shots) / 10 if wording else 0.05)
    platform = project(tmp_path, '{ kind = "few-shot", shots = 3, trials = 5, rows = 8 }')
    out, told = made(platform, rows, bench)
    wording = Wording.model_validate_json((out / "wording.json").read_text())
    assert adapters.kind_of(out) == "wording"
    assert len(wording.shots) == 3
    assert wording.system is None
    known = {each.id: each for each in rows[:30]}
    for shot in wording.shots:
        assert (shot.messages, shot.target) == (known[shot.id].messages, known[shot.id].target)
    tried = json.loads((out / "tried.json").read_text())
    assert tried["as_it_is"] == 0.05
    assert tried["value"] == told["value"] == 0.3
    assert tried["validation"] == 8
    assert 2 <= len(tried["wordings"]) <= 5
    assert told["recipe"] == platform.settings.tasks["helpdesk"].recipe.model_dump(mode="json")
    assert told["shots"] == [shot.id for shot in wording.shots]


def test_a_metric_of_which_less_is_better_is_told_as_it_is(tmp_path: Path) -> None:
    bench = Table(lambda wording, rows: -0.1 if wording else -0.4, falls=True)
    platform = project(tmp_path, '{ kind = "few-shot", shots = 2, trials = 3 }')
    out, told = made(platform, [row(number) for number in range(20)], bench)
    assert (told["value"], told["as_it_is"]) == (0.1, 0.4)
    assert {each["value"] for each in json.loads((out / "tried.json").read_text())["wordings"]} == {0.1}


def test_validation_rows_are_of_other_conversations_than_the_shots_and_repeat(tmp_path: Path) -> None:
    rows = [row(number, f"c{number // 3}") for number in range(60)]
    asked: list[Sequence[Example]] = []

    def worth(wording: Wording | None, rows: Sequence[Example]) -> float:
        asked.append(rows)
        return 0.0

    platform = project(tmp_path, '{ kind = "few-shot", shots = 2, trials = 4, rows = 12 }')
    out, _ = made(platform, rows, Table(worth))
    validation = {each.conversation for each in asked[0]}
    assert all(len({each.id for each in rows}) == len(rows) for rows in asked)
    by_id = {each.id: each for each in rows}
    wording = Wording.model_validate_json((out / "wording.json").read_text())
    assert validation.isdisjoint(by_id[shot.id].conversation for shot in wording.shots)
    text = (out / "tried.json").read_text()
    again, _ = made(platform, rows, Table(lambda wording, rows: 0.0))
    assert (again / "tried.json").read_text() == text


def test_prompt_tries_what_is_given_and_what_is_proposed(tmp_path: Path) -> None:
    recipe = '{ kind = "prompt", systems = ["Be brief.", "Be kind."], proposals = 3 }'
    says = ["Answer with the number.", "", "Answer  with the\nnumber."]
    bench = Table(lambda wording, rows: float(bool(wording and wording.system == "Answer with the number.")), says)
    out, told = made(project(tmp_path, recipe), [row(number) for number in range(20)], bench)
    assert json.loads((out / "wording.json").read_text()) == {"system": "Answer with the number.", "shots": []}
    assert (told["how"], told["tried"]) == ("proposal 1", 3)


REFUSED = {
    "nothing to try": ('{ kind = "prompt" }', 20, 40, "no system prompt to try"),
    "three examples": ('{ kind = "few-shot" }', 3, 40, "has 3 training rows"),
    "longer than the context": ('{ kind = "few-shot", max_length = 2040 }', 20, 40, "do not fit into the 2048 tokens"),
    "no room for an example": ('{ kind = "few-shot", max_length = 64 }', 20, 60, "no example of 'helpdesk' fits"),
    "a system prompt too long": (
        '{ kind = "prompt", max_length = 64, systems = ["very long ' + "word " * 60 + '"] }', 20, 40,
        "the system prompt 'very long word",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_one_clear_message(tmp_path: Path, case: str) -> None:
    recipe, count, tokens, fact = REFUSED[case]
    platform = project(tmp_path, recipe)
    with pytest.raises(Invalid) as caught:
        made(platform, [row(number) for number in range(count)], Table(lambda wording, rows: 0.0), tokens)
    assert fact in caught.value.fact
    assert caught.value.where.startswith("noria.toml:")


def test_rows_of_one_conversation_are_refused(tmp_path: Path) -> None:
    platform = project(tmp_path, '{ kind = "few-shot" }')
    with pytest.raises(Invalid, match="too few conversations"):
        made(platform, [row(number, "one") for number in range(20)], Table(lambda wording, rows: 0.0))


def test_what_words_are_chosen_by_is_part_of_the_key(tmp_path: Path) -> None:
    platform = project(tmp_path, '{ kind = "few-shot" }')
    name, task = platform.settings.task(None)
    look = Look(platform, name, task, {})
    other = Look(platform, name, task.model_copy(update={"max_tokens": task.max_tokens + 1}), {})
    assert adapter.params(look) != adapter.params(other)
