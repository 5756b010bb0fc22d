"""A judge at work: rows in, judged rows out, several at a time, and nothing judged twice."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from noria.errors import Invalid
from noria.evaluation.judges import ask
from noria.evaluation.judges.ask import Ruling
from noria.evaluation.judges.judge import Judge
from noria.evaluation.judges.rows import JudgeRow, check
from noria.ports import Engine, Progress
from noria.settings import PriceSettings
from noria.types import Message, Record, digest_of

Flip = Literal["first", "second", "mixed"]


class Judged(Record):
    """A row with its score; None where the judgement is void, for the reason that `void` gives.

    Of a pair, 1 means that the first answer won in both orders and 0 that it lost in both; else it is a tie, 0.5,
    and `flip` says whether the judge went for what stood first, for what stood second, or was of two minds.
    """

    row: JudgeRow
    score: float | None
    reason: str = ""
    mass: float | None = None
    void: str | None = None
    flip: Flip | None = None
    calls: int = 1
    known: int = 0
    """How many of the calls had been made before and were not made again."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cost: float = 0.0


@dataclass(slots=True)
class Bench:
    """Asks one judge through a running engine; `start` is called when something must be asked, and only then.

    `memory` is a file that remembers rulings by what was asked, line by line; None forgets them. A judgement depends
    on judge and row only, so it is taken from there.
    """

    judge: Judge
    start: Callable[[], Engine]
    slots: int
    price: PriceSettings = field(default_factory=PriceSettings)
    memory: Path | None = None
    _known: dict[str, Ruling] = field(default_factory=dict)
    _steps: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _room: threading.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._known = _remembered(self.memory)
        # Whoever calls from more threads than there are slots would count waiting as the judge's own time.
        self._room = threading.Semaphore(max(1, self.slots))

    def rule(self, rows: Sequence[JudgeRow], progress: Progress, where: str = "the rows") -> list[Judged]:
        """Judge every row, in their order.

        Raises Invalid for a row that lacks what the judge needs and where the engine refuses every row, Unavailable
        when the engine is gone; what was judged until then is remembered.
        """
        pairs = self.judge.settings.method == "pairwise"
        check(rows, self.judge.settings.wants, pairs, where)
        label = f"judge {self.judge.name}"
        progress.update(label, 0, len(rows))
        self.prepare()
        found = []
        with ThreadPoolExecutor(max(1, self.slots)) as pool:
            for done, judged in enumerate(pool.map(self.one, rows), 1):
                found.append(judged)
                progress.update(label, done, len(rows))
        refused = {each.void for each in found}
        if len(refused) == 1 and (void := refused.pop()) and void.startswith("refused"):
            raise Invalid(f"the engine of judge '{self.judge.name}' takes none of the rows: {void}")
        return found

    def one(self, row: JudgeRow) -> Judged:
        """Judge one row; `prepare` first."""
        orders = (False, True) if self.judge.settings.method == "pairwise" else (False,)
        told = [self._ruling(row, swapped) for swapped in orders]
        rulings = [ruling for ruling, _ in told]
        return _judged(row, rulings, sum(known for _, known in told), self.price)

    def prepare(self) -> None:
        """Have the judge write the steps of G-Eval, once; raises Invalid where it writes none."""
        if self.judge.settings.method != "g-eval" or self._steps:
            return
        messages = ask.steps_messages(self.judge)
        # They are remembered as the reason of a ruling.
        self._steps = self._remember(messages, lambda: self._written(messages))[0].reason.splitlines()
        if not self._steps:
            raise Invalid(f"judge '{self.judge.name}' writes no steps for its criteria", "use a more able model")

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps of G-Eval, once they are written."""
        return tuple(self._steps)

    def _ruling(self, row: JudgeRow, swapped: bool) -> tuple[Ruling, bool]:
        messages = ask.messages_of(self.judge, row, self._steps, swapped)
        return self._remember(messages, lambda: self._ruled(messages))

    def _remember(self, messages: Sequence[Message], make: Callable[[], Ruling]) -> tuple[Ruling, bool]:
        """A ruling, and whether it was known."""
        key = digest_of({"judge": self.judge.digest, "asked": [message.model_dump() for message in messages]})
        with self._lock:
            if key in self._known:
                return self._known[key], True
        ruling = make()
        with self._lock:
            self._known[key] = ruling
            if self.memory is not None:
                self.memory.parent.mkdir(parents=True, exist_ok=True)
                with self.memory.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([key, ruling.model_dump(mode="json")], ensure_ascii=False) + "\n")
        return ruling, False

    def _ruled(self, messages: Sequence[Message]) -> Ruling:
        engine, most, form = self.start(), self.judge.settings.max_tokens, ask.form_of(self.judge)
        with self._room:
            began = time.monotonic()
            try:
                said = engine.answer(messages, None, most, (), form)
            except Invalid as error:
                # One row may be longer than the judge's context; the others are not.
                return Ruling(score=None, void=f"refused: {error.fact}", seconds=round(time.monotonic() - began, 4))
            return ask.read(self.judge, said, round(time.monotonic() - began, 4))

    def _written(self, messages: Sequence[Message]) -> Ruling:
        said = self.start().answer(messages, None, ask.STEPS_TOKENS, (), ask.steps_form(self.judge))
        return Ruling(score=None, reason="\n".join(ask.steps_in(said)))


def _judged(row: JudgeRow, rulings: Sequence[Ruling], known: int, price: PriceSettings) -> Judged:
    prompt = sum(each.prompt_tokens for each in rulings)
    completion = sum(each.completion_tokens for each in rulings)
    first = rulings[0]
    score, flip = first.score, None
    void = next((each.void for each in rulings if each.void), None)
    if len(rulings) == 2:
        score, flip = _both(first.score, rulings[1].score)
    return Judged(
        row=row, score=None if void else score, reason=" / ".join(each.reason for each in rulings if each.reason),
        mass=first.mass, void=void, flip=None if void else flip, calls=len(rulings), known=known,
        prompt_tokens=prompt, completion_tokens=completion,
        seconds=round(sum(each.seconds for each in rulings), 4),
        cost=(prompt * price.prompt + completion * price.completion) / 1e6,
    )  # fmt: skip


def _both(shown: float | None, swapped: float | None) -> tuple[float | None, Flip | None]:
    """A pair's score from what was said of both orders: 1 means that what stood first was called better."""
    if shown is None or swapped is None:
        return None, None
    if shown == 1 - swapped:
        return shown, None
    if shown == swapped:
        return 0.5, "first" if shown == 1.0 else "second"
    return 0.5, "mixed"


def _remembered(memory: Path | None) -> dict[str, Ruling]:
    """What the file holds; a line that a kill has torn is passed over."""
    if memory is None or not memory.is_file():
        return {}
    known = {}
    for line in memory.read_text(encoding="utf-8").splitlines():
        try:
            key, ruling = json.loads(line)
            known[str(key)] = Ruling.model_validate(ruling)
        except (ValueError, ValidationError):
            continue
    return known
