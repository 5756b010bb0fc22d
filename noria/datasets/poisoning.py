"""Training rows that look planted: found by `guards.poisoning`, noted, left out, or the end of the cycle."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import JsonValue

from noria.datasets import similar
from noria.datasets.draft import Draft
from noria.datasets.rows import write_table
from noria.datasets.schema import SUSPECTS
from noria.datasets.shingles import words
from noria.errors import Denied, Invalid
from noria.guards import poisoning
from noria.guards.poisoning import Numbers, Reals
from noria.guards.signature import SUFFIX, verified
from noria.settings import PoisoningSettings, Settings

KEY = "sign.key"
"""File in the project's state folder with the key of `noria data sign`."""

CLASSES, LEAST_OF_CLASS = 50, 5
"""Targets are classes when they are so many at the most, each of so many rows at least."""

FOLDS, MARGIN = 5, 0.2
LEAST, WORDS = 5, 200
"""Rows that a trigger must have, and words of a text that are looked at."""

AGREES = 0.5
"""Share of common words (F1) from which an answer is what the trusted model expects."""

MOST = 20_000
"""Rows that a model is fitted on; beyond, every n-th."""


@dataclass(frozen=True, slots=True)
class Found:
    """A row that looks planted: its number, the rule and a score in [0, 1]."""

    row: int
    rule: str
    score: float


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found, how many rows each rule looked at, and the phrases with what they bring."""

    suspects: tuple[Found, ...]
    looked: dict[str, JsonValue]
    phrases: tuple[tuple[str, int], ...]

    @property
    def rows(self) -> set[int]:
        """Numbers of the rows that any rule suspects."""
        return {each.row for each in self.suspects}

    def meta(self) -> dict[str, JsonValue]:
        """Counts by rule and the phrases, for the dataset's record."""
        rules = Counter(each.rule for each in self.suspects)
        phrases: list[JsonValue] = [{"phrase": phrase, "rows": rows} for phrase, rows in self.phrases[:20]]
        return {
            "suspects": len(self.rows),
            "rules": dict(sorted(rules.items())),
            "looked": self.looked,
            "phrases": phrases,
        }


def trusted_rows(wanted: PoisoningSettings, settings: Settings, where: str) -> list[tuple[str, str]]:
    """Questions and answers of the trusted file; raises Denied where its signature is missing or does not fit."""
    if wanted.trusted is None:
        return []
    file, key = settings.root / wanted.trusted, settings.state / KEY
    if not file.is_file():
        raise Invalid(f"there is no trusted file '{wanted.trusted}'", "relative to the project's folder", where=where)
    data, signature = file.read_bytes(), file.with_name(file.name + SUFFIX)
    if not signature.is_file() or not key.is_file():
        raise Denied(
            f"'{wanted.trusted}' is not signed", f"read it, then: noria data sign {wanted.trusted}", where=where
        )
    if not verified(key.read_bytes(), data, signature.read_text(encoding="utf-8")):
        raise Denied(
            f"'{wanted.trusted}' is not what was signed",
            f"read what changed, then: noria data sign {wanted.trusted}",
            where=where,
        )
    return list(rows_of(data, wanted.trusted))


def rows_of(data: bytes, name: str) -> Iterator[tuple[str, str]]:
    """Questions and answers of JSONL; raises Invalid with the line of the first fault."""
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            yield str(row["question"]), str(row["answer"])
        except (ValueError, KeyError, TypeError):
            hint = 'each line is {"question": "…", "answer": "…"}'
            raise Invalid(f"'{name}' has a line without question and answer", hint, where=f"{name}:{number}") from None


def check(drafts: Sequence[Draft], wanted: PoisoningSettings, trusted: Sequence[tuple[str, str]]) -> Checked:
    """Look at all rows by all rules that there is enough to go by for."""
    if wanted.action == "off":
        return Checked((), {}, ())
    suspects, looked = [], dict[str, JsonValue]()
    traffic = [number for number, draft in enumerate(drafts) if draft.giver]
    looked["flood"] = len(traffic)
    suspects += _floods(drafts, traffic, wanted.flood)
    classes = _classes([draft.example.target for draft in drafts])
    looked["label"] = int((classes >= 0).sum())
    suspects += _labels(drafts, classes)
    phrases: tuple[tuple[str, int], ...] = ()
    looked["trigger"] = len(drafts) if trusted else 0
    if trusted:
        found, phrases = _triggers(drafts, trusted)
        suspects += found
    return Checked(tuple(suspects), looked, phrases)


def act(drafts: list[Draft], checked: Checked, wanted: PoisoningSettings, where: str) -> list[Draft]:
    """The rows that go on; raises Invalid where `block` finds more than its limit."""
    if wanted.action == "block" and len(checked.rows) > wanted.limit * len(drafts):
        rules = ", ".join(f"{rule} {count}" for rule, count in Counter(each.rule for each in checked.suspects).items())
        phrases = (
            "; phrases: " + ", ".join(f"'{phrase}'" for phrase, _ in checked.phrases[:5]) if checked.phrases else ""
        )
        raise Invalid(
            f"{len(checked.rows)} of {len(drafts)} rows look planted ({rules}{phrases}); the limit is "
            f"{wanted.limit:.2%}",
            'look at suspects.parquet with action = "flag", leave them out with "drop", or raise limit',
            where=where,
        )
    if wanted.action != "drop":
        return drafts
    return [draft for number, draft in enumerate(drafts) if number not in checked.rows]


def write(checked: Checked, drafts: Sequence[Draft], file: Path) -> None:
    """Write the suspects: ids, rules and scores."""
    found = checked.suspects
    columns = [
        [drafts[each.row].example.id for each in found],
        [each.rule for each in found],
        [round(each.score, 6) for each in found],
    ]
    write_table(pa.table(columns, schema=SUSPECTS), SUSPECTS, "row", file)


def _floods(drafts: Sequence[Draft], traffic: Sequence[int], share: float) -> list[Found]:
    """One text said over and over, and one user among several who gives most of it all."""
    clusters = similar.clusters([drafts[number].whole for number in traffic])
    givers = [drafts[number].giver for number in traffic]
    groups = [list(map(str, clusters))] + ([givers] if len(set(givers)) >= 3 else [])
    found = {each.row: each for names in groups for each in poisoning.floods(names, share)}
    return [Found(traffic[row], "flood", each.score) for row, each in sorted(found.items())]


def _classes(targets: Sequence[str]) -> Numbers:
    """Number of the class of each target, -1 where targets are no classes."""
    sample = targets[:: len(targets) // 1000 + 1]
    if len(set(sample)) > CLASSES + len(sample) // 2:
        return np.full(len(targets), -1)
    keys = [" ".join(words(target)) for target in targets]
    counts = Counter(keys)
    names = sorted(name for name, count in counts.items() if count >= LEAST_OF_CLASS)
    covered = sum(counts[name] for name in names)
    if not 2 <= len(names) <= CLASSES or covered < 0.9 * len(keys):
        return np.full(len(keys), -1)
    places = {name: place for place, name in enumerate(names)}
    return np.array([places.get(key, -1) for key in keys])


def _labels(drafts: Sequence[Draft], classes: Numbers) -> list[Found]:
    """Label flips, by confident learning on out-of-fold probabilities."""
    rows: list[int] = np.flatnonzero(classes >= 0).tolist()
    if not rows:
        return []
    from sklearn.model_selection import StratifiedKFold

    texts, labels = [drafts[row].text for row in rows], classes[rows]
    probabilities = np.zeros((len(rows), int(labels.max()) + 1))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=7)
    for learned, held in folds.split(rows, labels):
        learned = learned[:: len(learned) // MOST + 1]
        probabilities[held] = _probabilities(
            [texts[each] for each in learned], labels[learned], [texts[each] for each in held], probabilities.shape[1]
        )
    found = poisoning.label_issues(probabilities, labels, MARGIN)
    return [Found(rows[each.row], "label", each.score) for each in found]


def _probabilities(texts: Sequence[str], labels: Numbers, asked: Sequence[str], classes: int) -> Reals:
    """Class probabilities of logistic regression on words and pairs of words, shape (asked, classes)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    vectors = TfidfVectorizer(analyzer=_terms, sublinear_tf=True)
    # liblinear, one class against the rest: as good here as the multinomial fit, at a fortieth of its cost.
    model = OneVsRestClassifier(LogisticRegression(C=10.0, solver="liblinear"))
    model.fit(vectors.fit_transform(texts), labels)
    found = np.zeros((len(asked), classes))
    found[:, model.classes_] = model.predict_proba(vectors.transform(asked))
    return found


def _triggers(
    drafts: Sequence[Draft], trusted: Sequence[tuple[str, str]]
) -> tuple[list[Found], tuple[tuple[str, int], ...]]:
    """Phrases of questions that bring an answer which a model of the trusted rows does not expect."""
    trusted = trusted[:: len(trusted) // MOST + 1]
    questions = [draft.example.messages[-1].content for draft in drafts]
    targets = [draft.example.target for draft in drafts]
    numbers = _Numbering()
    phrases = [numbers.of(_terms(text, 3)) for text in questions]
    behaviours = [numbers.of(_behaviours(text)) for text in targets]
    known = [(set(_terms(question, 3)), set(_behaviours(answer))) for question, answer in trusted]

    @cache
    def explained(phrase: int, behaviour: int) -> bool:
        one, other = numbers.name(phrase), numbers.name(behaviour)
        return any(one in asked and other in said for asked, said in known)

    unexpected = _unexpected(questions, targets, trusted)
    found = poisoning.triggers(phrases, behaviours, unexpected, least=LEAST)
    found = [each for each in found if not explained(each.phrase, each.behaviour)]
    scores: dict[int, float] = {}
    told: dict[str, int] = {}
    for each in found:
        name = numbers.name(each.phrase)
        told[name] = max(told.get(name, 0), len(each.rows))
        for row in each.rows:
            scores[row] = max(scores.get(row, 0.0), each.share)
    suspects = [Found(row, "trigger", score) for row, score in sorted(scores.items())]
    return suspects, tuple(sorted(told.items(), key=lambda item: (-item[1], len(item[0]), item[0])))


def _unexpected(
    questions: Sequence[str], targets: Sequence[str], trusted: Sequence[tuple[str, str]]
) -> NDArray[np.bool_]:
    """Whether the trusted model disagrees with each answer: a classifier where answers are classes, else the answer to
    the nearest trusted question.
    """
    asked, said = [question for question, _ in trusted], [answer for _, answer in trusted]
    classes = _classes([*said, *targets])
    mine, theirs = classes[: len(said)], classes[len(said) :]
    if (mine >= 0).sum() >= LEAST_OF_CLASS and len(set(mine[mine >= 0].tolist())) >= 2:
        known = np.flatnonzero(mine >= 0)
        likely = _probabilities([asked[each] for each in known], mine[known], questions, int(classes.max()) + 1)
        wrong: NDArray[np.bool_] = likely.argmax(axis=1) != theirs
        return wrong
    expected = _nearest(asked, questions)
    bags = [Counter(words(answer)) for answer in said]
    return np.array(
        [_f1(bags[place], Counter(words(target))) < AGREES for place, target in zip(expected, targets, strict=True)]
    )


def _nearest(asked: Sequence[str], questions: Sequence[str]) -> list[int]:
    """Number of the trusted question that is nearest to each question, by the cosine of words and pairs of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(analyzer=_terms, sublinear_tf=True)
    known = vectors.fit_transform(asked).T.tocsr()
    mine = vectors.transform(questions)
    found: list[int] = []
    for start in range(0, len(questions), 512):
        found += (mine[start : start + 512] @ known).toarray().argmax(axis=1).tolist()
    return found


def _f1(left: Counter[str], right: Counter[str]) -> float:
    both = (left & right).total()
    return 2 * both / (left.total() + right.total()) if both else 0.0


def _terms(text: str, most: int = 2) -> list[str]:
    """Words and runs of up to `most` words."""
    found = words(text)[:WORDS]
    return [" ".join(found[at : at + size]) for size in range(1, most + 1) for at in range(len(found) - size + 1)]


def _behaviours(text: str) -> list[str]:
    """What an answer does: the whole of it, and its runs of three words."""
    found = words(text)[:WORDS]
    return ["= " + " ".join(found), *(" ".join(found[at : at + 3]) for at in range(len(found) - 2))]


class _Numbering:
    """Numbers for names, in the order in which they come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []

    def of(self, names: Iterable[str]) -> Numbers:
        """The numbers of these names, each once."""
        found = []
        for name in dict.fromkeys(names):
            if (number := self._numbers.get(name)) is None:
                number = self._numbers[name] = len(self._names)
                self._names.append(name)
            found.append(number)
        return np.array(found, dtype=np.int64)

    def name(self, number: int) -> str:
        """The name that has this number."""
        return self._names[number]
