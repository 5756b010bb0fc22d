"""Classes as answers: how several are written, which one a text means, and how an engine is held to them."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence

from pydantic import JsonValue

SEPARATOR = ";"
"""Between the classes of one answer where a task allows several; no class has it in its name."""
_EDGES = string.whitespace + string.punctuation + "…–—„“”‘’«»¿¡、。·"


def split(text: str) -> tuple[str, ...]:
    """The classes that a target or an answer lists, each once."""
    return tuple(dict.fromkeys(part for each in text.split(SEPARATOR) if (part := each.strip())))


def join(names: Sequence[str]) -> str:
    """Several classes as one answer."""
    return f"{SEPARATOR} ".join(names)


def canonical(text: str, classes: Sequence[str], several: bool) -> str | None:
    """A target in the classes' own words and order; None where it names another, or none.

    Case, white space and punctuation at the ends do not count: a person who corrects an answer writes "Yes.".
    """
    known = {_bare(name): name for name in classes}
    parts = split(text) if several else (text,)
    found = {known.get(_bare(part)) for part in parts}
    if not found or None in found:
        return None
    return join([name for name in classes if name in found])


def among(how: str, classes: Sequence[str], several: bool) -> dict[str, JsonValue]:
    """What a request's body says so that the answer is one of the classes, or a list of some; empty if nothing can.

    `how` is `Caps.choice`: "classes" for noria's own engines, "grammar" for llama.cpp (GBNF), "structured_outputs" for
    vLLM, which takes no list.
    """
    names: list[JsonValue] = list(classes)
    if not names:
        return {}
    if how == "classes":
        return {"classes": names, "several": several}
    if how == "grammar":
        one = " | ".join(json.dumps(name, ensure_ascii=False) for name in classes)
        more = f' ("{SEPARATOR} " class)*' if several else ""
        # A trained model begins its answer with the space that follows the prompt's last marker.
        return {"grammar": f'root ::= " "? class{more}\nclass ::= {one}'}
    if how == "structured_outputs" and not several:
        return {"structured_outputs": {"choice": names}}
    return {}


def _bare(text: str) -> str:
    return " ".join(text.casefold().strip(_EDGES).split()) or text.strip()
