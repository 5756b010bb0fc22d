"""A judge: what [judges.NAME] says, filled up with what comes with noria, and the model it is asked of."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from noria.settings import JudgeExample, JudgeSettings
from noria.types import Digest, Ref, digest_of

WORDING = 1
"""Version of the prompts and of how answers are read: another one is another judge."""


@dataclass(frozen=True, slots=True)
class Judge:
    """All that a judgement depends on beside the row; `digest` names it.

    `reverse` shows rubric and examples in reverse order: another way of asking the same.
    """

    name: str
    settings: JudgeSettings
    model: Ref
    criteria: str
    rubric: Mapping[int, str]
    examples: tuple[JudgeExample, ...]
    reverse: bool = False

    @property
    def digest(self) -> Digest:
        """Changes when any judgement might."""
        told = self.settings.model_dump(mode="json", include={"method", "scale", "max_tokens", "max_reason"})
        return digest_of(
            {
                **told, "wording": WORDING, "model": str(self.model), "criteria": self.criteria,
                "rubric": {str(score): text for score, text in self.rubric.items()},
                "examples": [each.model_dump(mode="json") for each in self.examples],
                "wants": list(self.settings.wants), "reverse": self.reverse,
            }
        )  # fmt: skip

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and greatest score; a pairwise judge scores 1 where the first answer wins and 0 where it loses."""
        return (0.0, 1.0) if self.settings.method == "pairwise" else self.settings.scale

    @property
    def values(self) -> tuple[float, ...]:
        """The scores that a person can give, rising."""
        return (0.0, 0.5, 1.0) if self.settings.method == "pairwise" else tuple(map(float, self.settings.scores))


def judge_of(name: str, settings: JudgeSettings, model: Ref) -> Judge:
    """The judge of a table, on this base model."""
    names = (settings.criteria,) if isinstance(settings.criteria, str) else settings.criteria
    known: dict[str, Any] = _presets()["criteria"]
    criteria = "\n".join(known[each]["text"] if each in known else each for each in names)
    kinds = {known[each]["kind"] for each in names if each in known}
    # Criteria that look at different things have the homework's texts in common.
    kind = kinds.pop() if len(kinds) == 1 else "answer"
    rubric = settings.rubric or {int(score): text for score, text in _presets()["rubric"][kind].items()}
    if settings.method == "pairwise":
        rubric = {}
    examples = settings.examples if settings.examples is not None else _examples(settings, kind)
    return Judge(name, settings, model, criteria, dict(sorted(rubric.items())), examples)


def _examples(settings: JudgeSettings, kind: str) -> tuple[JudgeExample, ...]:
    """Those that come with noria, as far as they have what the judge's rows have."""
    rows = _presets()["pairs"] if settings.method == "pairwise" else _presets()["examples"][kind]
    if settings.method != "pairwise" and settings.rubric:
        # A rubric of one's own gives the scores another meaning.
        return ()
    found = [JudgeExample.model_validate(row) for row in rows]
    return tuple(each for each in found if all(getattr(each, need) is not None for need in settings.wants))


@functools.cache
def _presets() -> dict[str, Any]:
    return tomllib.loads((files(__package__ or __name__) / "presets.toml").read_text(encoding="utf-8"))
