"""What can be said of an answer without knowing what it should have been."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from noria.errors import Unavailable
from noria.evaluation.metrics import text
from noria.evaluation.metrics.metric import Answered, Metric, Sums, mean_of
from noria.guards import grounding
from noria.stats.statistic import FloatArray, OfSums, ratio

OPENING = 160
"""Characters of an answer within which a refusal is looked for: it comes first."""
_REFUSAL = re.compile(
    r"""
    \b(?: i['’]?m | i\ am | we['’]?re )\ (?:really\ |very\ |so\ )?(?:sorry|afraid)\b .{0,40}
        \b(?: can(?:no|['’])t | can\ not | unable | won['’]t | not\ able )\b
    | \b(?: i | we )\ (?: can(?:no|['’])t | can\ not | won['’]t | will\ not | am\ unable\ to | am\ not\ able\ to
        | must\ decline | decline )\ (?:to\ )?(?: help | assist | comply | fulfil+ | provide | answer | discuss
        | engage | generate | create | write | do\ that )\b
    | \bunable\ to\ (?: help | assist | comply | fulfil+ )\b
    | \bas\ an?\ (?:ai|artificial\ intelligence|language\ model)\b .{0,40} \b(?: can(?:no|['’])t | unable | not )\b
    | \b(?: kann | darf | möchte )\ (?: ich | dir | ihnen | euch | dabei | leider | das )* .{0,40} \bnicht\b .{0,30}
        \b(?: helfen | beantworten | unterstützen | erfüllen )\b
    | \bje\ ne\ (?: peux | suis ) \b .{0,40} \b(?: aider | répondre | mesure )\b
    | \bno\ (?: puedo | podemos )\ (?: ayudar | responder | proporcionar | cumplir )
    | \bя\ не\ (?: могу | имею\ права )\b .{0,40} \b(?: помочь | ответить | выполнить | предоставить )
    | \bне\ могу\ (?:вам\ |с\ этим\ )*(?: помочь | ответить | выполнить )
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Variant:
    """Flesch's formula for one language: base - sentence * words per sentence - syllable * syllables per word."""

    language: str
    base: float
    sentence: float
    syllable: float
    source: str


VARIANTS = {
    "en_US": Variant("English", 206.835, 1.015, 84.6, "Flesch, 1948"),
    "de": Variant("German", 180.0, 1.0, 58.5, "Amstad, 1978"),
    "es": Variant("Spanish", 206.84, 1.02, 60.0, "Fernández Huerta, 1959"),
    "fr": Variant("French", 207.0, 1.015, 73.6, "Kandel and Moles, 1958"),
    "it": Variant("Italian", 217.0, 1.3, 60.0, "Franchina and Vacca, 1986"),
    "nl": Variant("Dutch", 206.835, 0.93, 77.0, "Douma, 1960"),
    "ru": Variant("Russian", 206.835, 1.3, 60.1, "Oborneva, 2006"),
}


def characters(answer: str) -> float:
    """Characters (Unicode code points) of an answer, spaces included; mean."""
    return len(answer)


def words(answer: str) -> float:
    """Words of an answer, white space being between them; mean."""
    return len(answer.split())


def bullet_points(answer: str) -> float:
    """Lines of an answer that begin with a bullet or a number; mean."""
    return text.bullets(answer)


def refusal_rate(answer: str) -> float:
    """1 where an answer begins by refusing to help, else 0, by set phrases (English, German, French, Spanish, Russian).

    To say that one does not know is no refusal. Phrases miss what a judge would see.
    """
    return float(_REFUSAL.search(answer[:OPENING]) is not None)


def support(answer: str, context: str, question: str) -> float:
    """Share of an answer's words, long ones weighing more, that the context it was given holds; 1 for no words."""
    found = grounding.ground(grounding.source(context), answer, question).support
    return 1.0 if found is None else min(1.0, found)


def _flesch(name: str, locale: str) -> Metric:
    variant = VARIANTS[locale]

    def rows(answers: Sequence[Answered]) -> list[Sums]:
        try:
            from textstat.textstat import textstatistics
        except ModuleNotFoundError as error:
            raise Unavailable("'textstat' is not installed", "pip install 'noria[evaluate]'") from error
        counting = textstatistics()
        counting.set_lang(locale)

        def one(answer: str) -> Sums:
            count = counting.lexicon_count(answer)
            return (count, counting.sentence_count(answer), counting.syllable_count(answer)) if count else (0, 0, 0)

        return [one(each.answer) for each in answers]

    def of(sums: FloatArray) -> FloatArray:
        length, beats = ratio(sums[..., :2]), ratio(sums[..., [2, 0]])
        ease = variant.base - variant.sentence * length - variant.syllable * beats
        return np.where(sums[..., 0] > 0, ease, 0.0)

    return Metric(
        name=name,
        definition=f"Flesch reading ease, the formula for {variant.language}: {variant.base:g} - {variant.sentence:g} "
        f"x words per sentence - {variant.syllable:g} x syllables per word, over all answers together; 60 and more is "
        "plain language. 0 for no words.",
        source=f"{variant.source}; library textstat",
        reads=("answer",),
        unit="points",
        higher_is_better=True,
        statistic=OfSums(of, high=variant.base),
        rows=rows,
    )


_COUNTED = "counted by noria"
CHARACTERS = mean_of(characters, low=0, higher_is_better=False, unit="characters per answer", source=_COUNTED)
WORDS = mean_of(words, low=0, higher_is_better=False, unit="words per answer", source=_COUNTED)
BULLET_POINTS = mean_of(bullet_points, low=0, higher_is_better=False, unit="lines per answer", source=_COUNTED)
REFUSAL_RATE = mean_of(refusal_rate, low=0, high=1, higher_is_better=False, unit="share", source="phrases by noria")
SUPPORT = mean_of(
    support, low=0, high=1, unit="share", source="K-Precision: Adlakha et al., 2023, as in noria.guards.grounding"
)
FLESCH_READING_EASE = _flesch("flesch_reading_ease", "en_US")
FLESCH_READING_EASE_DE = _flesch("flesch_reading_ease_de", "de")
FLESCH_READING_EASE_ES = _flesch("flesch_reading_ease_es", "es")
FLESCH_READING_EASE_FR = _flesch("flesch_reading_ease_fr", "fr")
FLESCH_READING_EASE_IT = _flesch("flesch_reading_ease_it", "it")
FLESCH_READING_EASE_NL = _flesch("flesch_reading_ease_nl", "nl")
FLESCH_READING_EASE_RU = _flesch("flesch_reading_ease_ru", "ru")
