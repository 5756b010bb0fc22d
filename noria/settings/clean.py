"""tasks.NAME.clean: the steps that turn what the sources gave into documents, in order."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field, SerializeAsAny, ValidationError
from pydantic_core import PydanticCustomError

from noria.settings.base import Name, Share, Table, known

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(ge=0.0)]


class CleanStep(Table):
    """One step: its name, and options of its own."""

    step: str


class UnicodeStep(CleanStep):
    """One form for what looks the same; no control, zero-width and direction characters."""

    step: Literal["unicode"] = "unicode"
    form: Literal["NFC", "NFKC"] = "NFC"
    """NFC changes nothing that a reader sees. NFKC also turns ² into 2, … into three dots and ， into a comma."""
    presentation: bool = True
    """Ligatures, full-width letters and Arabic presentation forms, which PDFs leave, become plain letters."""


class WhitespaceStep(CleanStep):
    """One space between words, no space at the ends of lines, no empty lines."""

    step: Literal["whitespace"] = "whitespace"


class BoilerplateStep(CleanStep):
    """Lines that the documents of a source repeat are left out, of fields with several lines."""

    step: Literal["boilerplate"] = "boilerplate"
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of a source's documents that hold the line."""
    documents: int = Field(default=5, ge=2)
    """Documents of a source that hold it, at the least."""


class MarkupStep(CleanStep):
    """Tags, comments and character references that HTML left behind."""

    step: Literal["markup"] = "markup"


class UrlsStep(CleanStep):
    """Web addresses are replaced."""

    step: Literal["urls"] = "urls"
    replace: str = "<url>"
    """What stands in their place; nothing where it is empty."""


class SpecialCharactersStep(CleanStep):
    """Pictographs, drawing and private characters go; letters of all scripts, numbers and punctuation stay."""

    step: Literal["special-characters"] = "special-characters"
    punctuation: bool = True
    """Keep punctuation, currency and mathematical signs."""
    keep: str = ""
    """Further characters to keep."""


class BookletRegexStep(CleanStep):
    r"""Delete whatever matches `[^a-zA-Z0-9\s]`, which destroys all that is not English; how much is measured."""

    step: Literal["booklet-regex"] = "booklet-regex"


class LowercaseStep(CleanStep):
    """Lower case in all scripts that have one."""

    step: Literal["lowercase"] = "lowercase"


class MissingStep(CleanStep):
    """Documents without a value in a column that is needed are dropped, or the value is filled in."""

    step: Literal["missing"] = "missing"
    columns: dict[Name, tuple[str, ...]] = Field(default_factory=dict)
    """Columns by source; without any, those that a source maps to question and answer."""
    fill: str | None = None
    """Value to fill in; without it the document is dropped."""


class LanguageStep(CleanStep):
    """Only documents in these languages stay."""

    step: Literal["language"] = "language"
    keep: tuple[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")], ...] = Field(min_length=1)
    """Codes of ISO 639."""
    confidence: Share = 0.5
    """Probability from which the language counts as known."""
    unsure: Literal["keep", "drop"] = "keep"
    """What becomes of documents whose language is not known, such as very short ones."""
    chars: int = Field(default=200, ge=20, le=10_000)
    """Characters at the beginning that are looked at."""


class LengthStep(CleanStep):
    """Documents that are too short or too long are dropped; words are counted where a script has spaces."""

    step: Literal["length"] = "length"
    min_letters: int = Field(default=2, ge=0, le=100)
    """Letters and digits; a single Chinese word has two."""
    min_chars: Count = 0
    max_chars: int | None = Field(default=None, ge=1)
    min_words: Count = 0
    max_words: int | None = Field(default=None, ge=1)


class C4Step(CleanStep):
    """The rules of the Colossal Clean Crawled Corpus (Raffel et al. 2020, section 2.2), for any language.

    Without its list of bad words, its language filter (step `language`) and its duplicates of three sentences
    (step `near`).
    """

    step: Literal["c4"] = "c4"
    terminal: bool = True
    """Lines must end in a terminal punctuation mark."""
    min_line_words: Count = 5
    min_sentences: Count = 3
    refuse_lines: tuple[str, ...] = (
        "javascript",
        "terms of use",
        "privacy policy",
        "cookie policy",
        "uses cookies",
        "use of cookies",
        "use cookies",
    )
    """Lines that hold one of these are left out; case does not count."""
    refuse: tuple[str, ...] = ("lorem ipsum", "{")
    """Documents that hold one of these are dropped; case does not count."""
    citations: bool = True
    """Marks like [1] and [citation needed] are left out."""


class GopherStep(CleanStep):
    """The quality rules of MassiveText (Rae et al. 2021, appendix A.1.1)."""

    step: Literal["gopher"] = "gopher"
    min_words: Count = 50
    max_words: Count = 100_000
    min_word_length: Positive = 3.0
    max_word_length: Positive = 10.0
    """Mean characters of a word."""
    max_symbols: Positive = 0.1
    """Hash signs, and ellipses, per word."""
    max_bullets: Share = 0.9
    """Share of lines that begin with a bullet."""
    max_ellipses: Share = 0.3
    """Share of lines that end in an ellipsis."""
    min_alphabetic: Share = 0.8
    """Share of words that hold a letter."""
    min_stop_words: Count = 2
    """Different stop words; in languages whose stop words are known."""
    stop_words: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """By language, in place of those that are built in; the published ones are English."""


class RepetitionStep(CleanStep):
    """The repetition rules of MassiveText (Rae et al. 2021, table A1): most shares of what is repeated."""

    step: Literal["repetition"] = "repetition"
    lines: Share = 0.3
    paragraphs: Share = 0.3
    line_chars: Share = 0.2
    paragraph_chars: Share = 0.2
    top: dict[Annotated[int, Field(ge=1, le=20)], Share] = Field(default_factory=lambda: {2: 0.2, 3: 0.18, 4: 0.16})
    """By number of words: share of the characters that the most frequent run of so many words has."""
    runs: dict[Annotated[int, Field(ge=1, le=20)], Share] = Field(
        default_factory=lambda: {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.1}
    )
    """By number of words: share of the characters in runs of so many words that were there before."""


class ExactStep(CleanStep):
    """Of documents of a source that differ in case and white space only, the first by id stays."""

    step: Literal["exact"] = "exact"


class NearStep(CleanStep):
    """Of the near duplicates of a source one stays."""

    step: Literal["near"] = "near"


class SemanticStep(CleanStep):
    """Of documents of a source that mean the same one stays: by the cosine of their embeddings, numbers alike."""

    step: Literal["semantic"] = "semantic"
    engine: Name
    """An engine that makes embeddings."""
    similarity: Annotated[float, Field(ge=0.5, le=1.0)] = 0.95
    """Least cosine of two texts that mean the same."""
    chars: Annotated[int, Field(ge=1)] = 1000
    """Longer texts are left alone, as are those with more tokens than the model reads."""


STEPS: dict[str, type[CleanStep]] = {
    "unicode": UnicodeStep,
    "whitespace": WhitespaceStep,
    "boilerplate": BoilerplateStep,
    "markup": MarkupStep,
    "urls": UrlsStep,
    "special-characters": SpecialCharactersStep,
    "booklet-regex": BookletRegexStep,
    "lowercase": LowercaseStep,
    "missing": MissingStep,
    "language": LanguageStep,
    "length": LengthStep,
    "c4": C4Step,
    "gopher": GopherStep,
    "repetition": RepetitionStep,
    "exact": ExactStep,
    "near": NearStep,
    "semantic": SemanticStep,
}
"""Every step by its name."""


def _step(value: object) -> object:
    """A step from its name, or from a table with its name and options; faults are told with what is known."""
    if isinstance(value, CleanStep):
        return value
    table = {"step": value} if isinstance(value, str) else value
    if not isinstance(table, dict) or not isinstance(table.get("step"), str):
        raise _fault("a step is a name, or a table with its name", 'write "length" or { step = "length" }')
    name = table["step"]
    if name not in STEPS:
        raise _fault(f"there is no step '{name}'", known(name, STEPS))
    options = set(STEPS[name].model_fields) - {"step"}
    for option in table.keys() - options - {"step"}:
        raise _fault(f"step '{name}' has no option '{option}'", known(option, options))
    try:
        return STEPS[name].model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise _fault(f"step '{name}' needs '{option}'", f'{{ step = "{name}", {option} = … }}') from error
        shown = f"step '{name}', {option}: {first['msg']} (it is '{first['input']}')"
        raise _fault(shown, "correct that option") from error


def _fault(fact: str, hint: str) -> PydanticCustomError:
    return PydanticCustomError("clean", "{fact}", {"fact": fact, "hint": hint})


def _steps(*values: object) -> tuple[CleanStep, ...]:
    return tuple(step for step in map(_step, values) if isinstance(step, CleanStep))


Cleaning = tuple[Annotated[SerializeAsAny[CleanStep], BeforeValidator(_step)], ...]
CLEANING: Cleaning = _steps("unicode", "whitespace", "boilerplate", "length", "exact", "near")
"""What is done where a task says nothing else."""


def options_of(step: BaseModel) -> dict[str, object]:
    """A step's options by name."""
    return {name: getattr(step, name) for name in type(step).model_fields if name != "step"}
