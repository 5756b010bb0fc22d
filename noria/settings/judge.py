"""Tables of judges: models that say how good an answer is."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from noria.settings.base import Name, Table

Need = Literal["context", "target"]
Method = Literal["score", "g-eval", "pairwise"]

PRESETS: Final[Mapping[str, tuple[Need, ...]]] = {
    "relevance": (),
    "accuracy": (),
    "clarity": (),
    "answer_relevancy": (),
    "faithfulness": ("context",),
    "contextual_relevancy": ("context",),
    "contextual_recall": ("context", "target"),
    "completeness": ("target",),
    "correctness": ("target",),
}
"""Criteria that come with noria, and what a row must have for them; their texts are in `evaluation/judges`."""
SCORES: Final = (1, 5)
"""The scale that the texts and examples which come with noria are made for."""


class JudgeExample(Table):
    """judges.NAME.examples: one graded answer; `other` is the second answer of a pair."""

    input: str
    output: str
    score: float
    justification: str
    context: str | None = None
    target: str | None = None
    other: str | None = None


class JudgeSettings(Table):
    """[judges.NAME]: a model that scores answers, or says which of two is better."""

    engine: Name
    """Which of [engines] it runs on, with its base model; one with a url may be anywhere."""
    method: Method = "score"
    """`score`: a reason, then a score. `g-eval`: steps of its own making, then a score weighted by probability.
    `pairwise`: which of two answers is better, asked in both orders."""
    criteria: str | tuple[str, ...]
    """One's own text, the name of criteria that come with noria, or several of these names."""
    scale: tuple[int, int] = SCORES
    """Least and greatest score, both whole numbers."""
    rubric: dict[int, str] = Field(default_factory=dict)
    """What each score means; without it noria's own texts for 1 to 5."""
    examples: tuple[JudgeExample, ...] | None = None
    """Graded answers that the judge is shown; without it those that come with noria, [] for none."""
    needs: tuple[Need, ...] | None = None
    """What a row must have: the context, the wanted answer (`target`); without it as the criteria want it."""
    max_tokens: int = Field(default=256, ge=16)
    """Most tokens of a judgement; one that is cut is void, never a score."""
    max_reason: int = Field(default=200, ge=0)
    """Most characters of a reason, enforced by the schema; 0 for services that refuse such a bound."""
    good_from: float | None = None
    """Score from which an answer counts as good; without it four fifths of the scale, 4 of 1 to 5."""
    cache: bool = True
    """Whether what was judged before is remembered: a judgement is a function of judge and row."""

    @field_validator("criteria")
    @classmethod
    def _known(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value or (isinstance(value, str) and not value.strip()):
            raise ValueError(f"say what to judge by: a text, or one of {', '.join(PRESETS)}")
        for each in (value,) if isinstance(value, str) else value:
            # A text of one's own has more than one word.
            if each not in PRESETS and (not isinstance(value, str) or len(each.split()) == 1):
                near = difflib.get_close_matches(each, PRESETS, n=1)
                hint = f"did you mean '{near[0]}'" if near else f"known are {', '.join(PRESETS)}"
                raise ValueError(f"there are no criteria called '{each}'; {hint}")
        return value

    @field_validator("scale")
    @classmethod
    def _rises(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not value[0] < value[1] <= value[0] + 10:
            raise ValueError("a scale goes from a smaller to a greater whole number, 11 scores at the most")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        scores = set(self.scores)
        if self.method == "pairwise":
            if self.rubric or self.scale != SCORES:
                raise ValueError("a pairwise judge has neither scale nor rubric: it says which answer is better")
            scores = {0, 1}
        if self.rubric and set(self.rubric) != scores:
            raise ValueError(f"its rubric must have one text for each score: {', '.join(map(str, self.scores))}")
        if self.scale != SCORES and not self.rubric:
            raise ValueError("a scale of its own needs a rubric: one text for each score")
        if self.method == "g-eval" and not 0 <= self.scale[0] <= self.scale[1] <= 9:
            raise ValueError("g-eval reads the probability of one digit: its scale must lie within 0 to 9")
        for each in self.examples or ():
            if each.score not in scores | ({0.5} if self.method == "pairwise" else set()):
                raise ValueError(f"an example has the score {each.score:g}, which is not on the scale")
            if (self.method == "pairwise") != (each.other is not None):
                raise ValueError("the examples of a pairwise judge, and only those, have a second answer `other`")
            if missing := [need for need in self.wants if getattr(each, need) is None]:
                raise ValueError(f"an example has no {missing[0]}, which its criteria need")
        if self.good_from is not None and not self.scale[0] < self.good_from <= self.scale[1]:
            raise ValueError(f"good_from {self.good_from:g} is not on the scale, above its least score")
        return self

    @property
    def scores(self) -> tuple[int, ...]:
        """The scores of the scale, rising."""
        return tuple(range(self.scale[0], self.scale[1] + 1))

    @property
    def wants(self) -> tuple[Need, ...]:
        """What a row must have beside question and answer."""
        if self.needs is not None:
            return self.needs
        names = (self.criteria,) if isinstance(self.criteria, str) else self.criteria
        return tuple(dict.fromkeys(need for name in names for need in PRESETS.get(name, ())))

    @property
    def passes(self) -> float:
        """Score from which an answer counts as good; a pairwise judge calls one good that wins."""
        if self.method == "pairwise":
            return 1.0
        low, high = self.scale
        return self.good_from if self.good_from is not None else low + 0.75 * (high - low)
