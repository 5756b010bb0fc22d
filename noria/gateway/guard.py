"""Guards on the way in and on the way out: detectors find, the task's settings say what is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from noria.errors import Invalid
from noria.settings import Action, Detector
from noria.types import Finding

Detect = Callable[[str], Sequence[Finding]]


class Refused(Invalid):
    """A guard does not let the text pass."""

    code = "content_filter"


class Guards:
    """The chain of detectors. All of them look; the strictest action that a finding asks for is taken."""

    def __init__(self, detectors: Mapping[Detector, Detect]) -> None:
        self._detectors = detectors

    def admit(self, texts: Sequence[str], rules: Mapping[Detector, Action]) -> list[str]:
        """Kinds found in a request; raises Refused. What is to be redacted is flagged: a question is not rewritten."""
        kinds: list[str] = []
        for text in texts:
            for name, action in rules.items():
                found = self._detectors[name](text)
                if found and action == "refuse":
                    raise Refused(
                        f"the request was refused: it holds {found[0].kind} (guard '{name}')", "leave that out of it"
                    )
                kinds += [f"input:{name}:{each.kind}" for each in found]
        return list(dict.fromkeys(kinds))

    def release(self, text: str, rules: Mapping[Detector, Action]) -> tuple[str, list[str]]:
        """An answer as it may be sent, and the kinds found in it; raises Refused."""
        kinds: list[str] = []
        spans: list[Finding] = []
        for name, action in rules.items():
            found = self._detectors[name](text)
            if found and action == "refuse":
                raise Refused(f"the answer was withheld: it holds {found[0].kind} (guard '{name}')", "ask otherwise")
            kinds += [f"output:{name}:{each.kind}" for each in found]
            spans += found if action == "redact" else []
        return redacted(text, spans), list(dict.fromkeys(kinds))


def redacted(text: str, findings: Sequence[Finding]) -> str:
    """The text with every span replaced by its kind, such as `[email]`; of overlapping ones the longer stays."""
    end = len(text)
    out: list[str] = []
    for each in sorted(findings, key=lambda found: (found.end, -found.start), reverse=True):
        if each.end <= end:
            out += (text[each.end : end], f"[{each.kind}]")
            end = each.start
    return text[:end] + "".join(reversed(out))
