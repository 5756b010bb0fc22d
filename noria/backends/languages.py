"""Which languages texts are in, by py3langid: small, offline, 97 languages."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable
from typing import Any

from noria.errors import Unavailable

SURE = 0.5
"""Probability from which a detected language is believed; very short texts look like many."""
UNKNOWN = "und"
"""ISO 639's own code for what could not be determined."""


def count(texts: Iterable[str]) -> dict[str, int]:
    """How many of the texts are in each language (ISO 639-1, or `und`), the most frequent first."""
    identifier = _identifier()
    found: Counter[str] = Counter()
    for text in texts:
        code, probability = identifier.classify(text)
        found[str(code) if probability >= SURE else UNKNOWN] += 1
    return dict(sorted(found.items(), key=lambda each: (-each[1], each[0])))


@functools.cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ModuleNotFoundError as error:
        raise Unavailable(f"'{error.name}' is not installed", "pip install 'noria[data]'") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
