"""Guards on the way in and on the way out: detectors find, the task's settings say what is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from noria.errors import Invalid
from noria.settings import Action, Detector
from noria.types import Finding

STEP = 48
"""Characters of a stream between two looks: about a dozen tokens."""
MARGIN = 32
"""Characters after a finding that may still change it."""
MOST = 16 * 1024
"""Longest finding that is waited for, in characters; of a longer one the rest is looked at afresh."""

Detect = Callable[[str], Sequence[Finding]]


class Watch(NamedTuple):
    """A detector, and how far its look goes: characters after and before the start of what it finds."""

    find: Detect
    reach: int
    behind: int


class Refused(Invalid):
    """A guard does not let the text pass. `passed` is what of it may be sent all the same when it is a stream's."""

    code = "content_filter"

    def __init__(self, fact: str, hint: str) -> None:
        super().__init__(fact, hint)
        self.passed = ""


class Guards:
    """The chain of detectors. All of them look; the strictest action that a finding asks for is taken."""

    def __init__(self, detectors: Mapping[Detector, Watch]) -> None:
        self._detectors = detectors

    def admit(self, texts: Sequence[str], rules: Mapping[Detector, Action], found: list[str]) -> None:
        """Look at a request; raises Refused. Kinds are added to `found`.

        What is to be redacted is flagged: a question is not rewritten.
        """
        kinds: dict[str, None] = {}
        refused: tuple[str, str] | None = None
        for text in texts:
            for name, action in rules.items():
                for each in self._detectors[name].find(text):
                    kinds[f"input:{name}:{each.kind}"] = None
                    if action == "refuse" and refused is None:
                        refused = (each.kind, name)
        found += kinds
        if refused is not None:
            raise Refused(
                f"the request was refused: it holds {refused[0]} (guard '{refused[1]}')", "leave that out of it"
            )

    def sieve(self, rules: Mapping[Detector, Action], found: list[str]) -> Sieve:
        """What one text of an answer goes through, streamed or whole; kinds that it finds are added to `found`."""
        return Sieve([(name, self._detectors[name], action) for name, action in rules.items()], found)

    def sieves(self, rules: Mapping[Detector, Action], found: list[str]) -> Callable[[str, str | None], str]:
        """Sieves for all texts of an answer by their names: more of a text in, or None for its end, out what may go."""
        known: dict[str, Sieve] = {}

        def filtered(name: str, text: str | None) -> str:
            sieve = known.get(name)
            if sieve is None:
                if text is None:
                    return ""
                sieve = known[name] = self.sieve(rules, found)
            return sieve.feed(text)

        return filtered


class Sieve:
    """Lets a text pass that comes in pieces, a little late, so that what a guard takes out was never sent.

    The text is looked at each time it has grown by `STEP` characters, up to a place that is far enough ahead of what
    is let go: as far as the longest detector needs to see a finding from its start. A finding that reaches the end of
    what is there is waited for. When to look depends on how much text there is, never on how it was cut into pieces,
    so a stream gives to the character what the same text gives as a whole, refusals included.

    Rules that only flag hold nothing back.
    """

    def __init__(self, rules: Sequence[tuple[Detector, Watch, Action]], found: list[str]) -> None:
        self._rules = rules
        self._found = found
        self._acts = any(action != "flag" for _, _, action in rules)
        self._ahead = MARGIN + max(watch.reach for _, watch, _ in rules)
        self._behind = MARGIN + max(watch.behind for _, watch, _ in rules)
        self._text = ""
        self._start = 0
        self._passed = 0
        self._need = STEP + self._ahead

    def feed(self, piece: str | None) -> str:
        """Take more of the text, or None at its end; returns what may be sent. Raises Refused."""
        if piece is not None:
            self._text += piece
            if len(self._text) < self._need:
                return piece if not self._acts else ""
        out: list[str] = []
        try:
            while len(self._text) >= self._start + self._need:
                out.append(self._look(self._text[self._start : self._start + self._need], last=False))
            if piece is None:
                out.append(self._look(self._text[self._start :], last=True))
        except Refused as refused:
            refused.passed = "".join(out)
            raise
        self._text = self._text[self._start :]
        self._start = 0
        return "".join(out) if self._acts else piece or ""

    def _look(self, window: str, last: bool) -> str:
        """Decide on the next step of the text, of which `window` is the part to be seen."""
        due = len(window) if last else min(self._passed + STEP, len(window))
        spans = [
            (max(each.start, self._passed), each.end, each.kind, name, action)
            for name, watch, action in self._rules
            for each in watch.find(window)
            if each.end > self._passed
        ]
        spans.sort(key=lambda span: (span[0], -span[1]))
        merged: list[tuple[int, int, str]] = []
        seen: dict[str, None] = {}
        refused: tuple[str, str] | None = None
        for start, end, kind, name, action in spans:
            if start >= due:
                break
            if not last and end + MARGIN > len(window) and len(window) - self._passed < MOST:
                self._need += len(window) - self._passed
                return ""
            seen[f"output:{name}:{kind}"] = None
            if action == "refuse":
                refused = refused or (kind, name)
            elif action == "redact":
                due = max(due, end)
                if merged and start < merged[-1][1]:
                    merged[-1] = (merged[-1][0], max(end, merged[-1][1]), merged[-1][2])
                else:
                    merged.append((start, end, kind))
        self._found += [each for each in seen if each not in self._found]
        if refused is not None:
            raise Refused(f"the answer was withheld: it holds {refused[0]} (guard '{refused[1]}')", "ask otherwise")
        return self._pass(window, merged, due)

    def _pass(self, window: str, spans: Sequence[tuple[int, int, str]], due: int) -> str:
        out: list[str] = []
        at = self._passed
        for start, end, kind in spans:
            out += (window[at:start], f"[{kind}]")
            at = end
        out.append(window[at:due])
        gone = max(0, due - self._behind)
        self._start += gone
        self._passed = due - gone
        self._need = self._passed + STEP + self._ahead
        return "".join(out)
