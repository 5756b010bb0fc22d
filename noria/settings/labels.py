"""Tables of ground truth: which answers people are asked to label, and how a prediction is held against the truth."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from noria.settings.base import Share, Table


class ComparisonSettings(Table):
    """tasks.NAME.labels.comparison: when an answer says what the truth says.

    `exact` compares words, `tolerant` numbers, units, dates, lists and synonyms too, `judge` asks a judge.
    """

    kind: Literal["exact", "tolerant", "judge"] = "exact"
    judge: str | None = None
    """Which judge, where `kind` is judge: one that scores answers against their target, such as `correctness`."""
    relative: Annotated[float, Field(ge=0.0, lt=1.0)] = 1e-12
    """Most difference of two numbers, as a share of the true one."""
    absolute: float = Field(default=0.0, ge=0.0)
    """Most difference of two numbers, in the unit of the true one; the wider of both holds."""
    decimal: Literal[".", ","] = "."
    """What `1.234` and `1,234` are read by; other numbers are clear by themselves."""
    dates: Literal["day-first", "month-first"] = "day-first"
    """What `03/04/2026` is read by."""
    synonyms: tuple[tuple[str, ...], ...] = ()
    """Groups of words or phrases that mean the same."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if (self.kind == "judge") != (self.judge is not None):
            raise ValueError('kind = "judge" and judge = "NAME" go together')
        return self


class LabelSettings(Table):
    """tasks.NAME.labels: the answers that people are asked to label. Shares are of all answers."""

    first: int = Field(default=0, ge=0)
    """The first so many answers are all asked for."""
    share: Share = 0.02
    """Drawn at random, each answer with the same chance."""
    uncertain: Share = 0.0
    """Drawn with a chance that grows with the doubt in the answer: its score as of the lights, turned round."""
    disagree: Share = 0.0
    """Drawn with a chance that grows with the disagreement on it: of shadows with the answer, or of judges."""
    per_day: int | None = Field(default=None, ge=1)
    """Most answers asked for on average of a day; neither the first ones nor confirmations of green ones count."""
    labellers: int = Field(default=1, ge=1, le=16)
    """How many people label the same answer."""
    scale: dict[str, float] = Field(default={"wrong": 0.0, "right": 1.0}, min_length=2)
    """The labels that may be given, by name."""
    right: float | None = None
    """An answer is right from this value on; without it, from the highest."""
    level: Literal["nominal", "ordinal", "interval"] = "ordinal"
    """What the values of the scale mean, for the agreement of labellers."""
    private: bool = False
    """Answers whose users have refused training may be shown to labellers too."""
    comparison: ComparisonSettings = ComparisonSettings()

    @property
    def least_right(self) -> float:
        """The lowest value that counts as right."""
        return max(self.scale.values()) if self.right is None else self.right

    @model_validator(mode="after")
    def _fair(self) -> Self:
        if not self.share and (self.uncertain or self.disagree):
            raise ValueError(
                "with uncertain or disagree, share must be above 0: answers that can never be drawn bias every estimate"
            )
        low, high = min(self.scale.values()), max(self.scale.values())
        if low == high:
            raise ValueError("its scale has one value only")
        if not low < self.least_right <= high:
            raise ValueError(f"right must lie above {low:g} and be at most {high:g}, as the scale goes")
        return self
