"""Prompt injection: words that are meant for the model's instructions, not for its task, in English and German.

Every rule has a score, and one that stands alone rarely reaches the threshold unless it is unmistakable. Rules that
fire near each other are taken together by noisy-or: 1 - (1 - a)(1 - b)…, each rule once.

What to expect of it. It is a net with wide meshes: it stops what is copied from lists of known attacks, not a
determined author (see Greshake et al., Not what you've signed up for, 2023, https://arxiv.org/abs/2302.12173, and
OWASP LLM01). Texts *about* prompt injection are found too, and so is fiction that says "ignore all previous
instructions". Ordinary questions with single words of it ("ignore the warning", "act as a reference", "system") are
not.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from noria.types import Finding

THRESHOLD: Final = 0.6
"""Combined score from which on something is a finding."""
NEAR: Final = 240
"""Characters within which two rules speak for each other."""
REACH: Final = NEAR + 160
"""Characters after its start within which a finding shows: the longest match, and what stands near it."""
BEHIND: Final = NEAR + 160
"""Characters before its start that decide whether something is a finding."""

_HINTS: Final = (
    "ignor", "disregard", "forget", "overrid", "bypass", "instruction", "instruktion", "anweisung", "prompt", "vergiss",
    "vergesst", "missacht", "umgeh", "jailbr", "god mode", "dan mode", "developer mode", "entwicklermodus", "rule",
    "anything now", "restrict", "einschränk", "zensur", "censor", "filter", "moral", "ethic", "guideline", "directi",
    "command", "constraint", "message", "context", "programming", "vorgabe", "befehl", "regel", "richtlinie",
    "nachricht", "the user", " nutzer", "anwender", "benutzer", "<|", "inst]", "sys>>", "system", "assistant",
)  # fmt: skip
"""Of these every finding holds one at least: what is left (`role`) does not reach the threshold alone."""
_TAGS = re.compile(r"[\U000e0001-\U000e007f]")
_OLD = r"(?:previous|prior|above|earlier|preceding|former|foregoing|existing|original|initial|your|these|those|the)"
_ORDERS = r"(?:instruction|prompt|rule|direction|guideline|command|directive|constraint|message|context|programming)s?"
_ALT = (
    r"(?:vorherigen?|vorigen?|bisherigen?|obigen?|früheren?|vorangegangenen?|ursprünglichen?|deine[rn]?|diese[rn]?|die)"
)
_BEFEHLE = r"(?:anweisung|instruktion|regel|vorgabe|befehl|richtlinie|prompt|nachricht|einschränkung)(?:en|e|s|n)?"
_GAP = r"\W{1,4}(?:\w{1,20}\W{1,4}){0,3}"
"""A few words between, at the most three."""

_RULES: Final[tuple[tuple[str, float, re.Pattern[str]], ...]] = tuple(
    (name, score, re.compile(pattern, re.MULTILINE))
    for name, score, pattern in (
        (
            "override",
            0.9,
            rf"\b(?:ignore|disregard|forget|override|bypass)\b"
            rf"{_GAP}{_OLD}\W{{1,4}}(?:\w{{1,20}}\W{{1,4}})?{_ORDERS}\b",
        ),
        (
            "override",
            0.7,
            rf"\b(?:ignore|disregard|forget)\W{{1,4}}(?:all|everything|any)\b{_GAP}(?:above|before|told|"
            rf"said|{_ORDERS})\b",
        ),
        (
            "override-de",
            0.9,
            rf"\b(?:ignorier(?:e|t|en)?|vergiss|vergesst|missachte[nt]?|umgehe?)\b"
            rf"{_GAP}{_ALT}\W{{1,4}}(?:\w{{1,24}}\W{{1,4}})?{_BEFEHLE}\b",
        ),
        (
            "override-de",
            0.7,
            rf"\b(?:ignorier(?:e|t|en)?|vergiss|vergesst)\W{{1,4}}(?:alles?|sämtliche[ns]?)\b"
            rf"{_GAP}(?:zuvor|davor|vorher|bisher|oben|{_BEFEHLE})\b",
        ),
        (
            "reveal",
            0.7,
            rf"\b(?:reveal|show|print|repeat|output|display|leak|tell me|give me|what (?:is|are))\b"
            rf"{_GAP}(?:system prompt|initial prompt|hidden prompt|(?:initial|system|secret|"
            rf"hidden) instructions)\b",
        ),
        (
            "reveal-de",
            0.7,
            r"\b(?:zeige?|verrate?|nenne?|wiederhole|gib|drucke|offenbare|wie lautet)\b"
            r"\W{1,4}(?:\w{1,20}\W{1,4}){0,4}(?:system-?\s?prompt|system-?anweisung(?:en)?|(?:geheimen?|"
            r"internen?|versteckten?) anweisung(?:en)?)\b",
        ),
        (
            "role",
            0.4,
            r"\b(?:you are now|from now on,? you (?:are|will|must)|pretend (?:to be|that you|you are)|"
            r"act as (?:if you|an? (?:un\w{1,20}|evil|hacker)))\b",
        ),
        (
            "role-de",
            0.4,
            r"\b(?:du bist (?:ab )?(?:jetzt|nun|sofort)|ab (?:jetzt|sofort|nun) bist du|tu so,? als|"
            r"stell dir vor,? du (?:bist|wärst))\b",
        ),
        (
            "unbound",
            0.6,
            r"\b(?:jailbreak(?:ed|en)?|do anything now|dan mode|developer mode (?:is )?(?:enabled|on|"
            r"activated)|god mode|entwicklermodus)\b",
        ),
        (
            "unbound",
            0.4,
            r"\b(?:without|no|free (?:of|from)) (?:any )?(?:restrictions?|filters?|censorship|moral|"
            r"ethical|guidelines|rules)\b",
        ),
        (
            "unbound-de",
            0.4,
            r"\b(?:ohne|keine(?:rlei)?) (?:jede |jegliche |irgendwelche )?(?:einschränkung(?:en)?|filter|"
            r"zensur|regeln|moral)\b",
        ),
        (
            "new-orders",
            0.6,
            rf"\b(?:(?:new|updated|real|actual) {_ORDERS}|neue {_BEFEHLE})\s{{0,3}}:",
        ),
        (
            "hide",
            0.5,
            r"\b(?:do not|don't|never) (?:tell|inform|mention (?:this|it) to|reveal (?:this|"
            r"it) to) the user\b",
        ),
        (
            "hide-de",
            0.5,
            r"\b(?:sag|verrate|erzähl)e? (?:es |das |dies )?(?:dem|der) (?:nutzer|benutzer|anwender|"
            r"nutzerin) (?:nicht|nichts)\b",
        ),
        (
            "markup",
            0.8,
            r"<\|(?:im_start|im_end|system|user|assistant|endoftext|eot_id|start_header_id)\|>|\[/?inst\]|"
            r"<</?sys>>",
        ),
        ("markup", 0.5, r"^[ \t#>*]{0,6}(?:system|assistant)[ \t]{0,2}:"),
        ("invisible", 0.9, r"[\U000e0001-\U000e007f]{3,64}"),
    )
)


def find(text: str) -> list[Finding]:
    """Prompt injection in a text, in order; the kind is prompt_injection, the score that of all that stands near.

    Time is linear in the length of the text.
    """
    low = _lowered(text)
    if not any(map(low.__contains__, _HINTS)) and not _TAGS.search(text):
        return []
    hits = [
        (match.start(), match.end(), name.removesuffix("-de"), score)
        for name, score, pattern in _RULES
        for match in pattern.finditer(low)
    ]
    hits.sort()
    return _weighed(hits)


def _weighed(hits: list[tuple[int, int, str, float]]) -> list[Finding]:
    found: list[Finding] = []
    # How often each rule of a score fires near the hit in question; hits go in at the right and out at the left.
    near: Counter[tuple[str, float]] = Counter()
    first = after = 0
    for start, end, name, _ in hits:
        while after < len(hits) and hits[after][0] <= start + NEAR:
            near[hits[after][2:]] += 1
            after += 1
        while hits[first][0] < start - NEAR:
            near[hits[first][2:]] -= 1
            first += 1
        best: dict[str, float] = {}
        for (rule, score), count in near.items():
            if count:
                best[rule] = max(score, best.get(rule, 0.0))
        doubt = 1.0
        for rule in sorted(best):
            doubt *= 1.0 - best[rule]
        if 1.0 - doubt >= THRESHOLD:
            found.append(Finding(kind="prompt_injection", start=start, end=end, score=round(1.0 - doubt, 4), rule=name))
    return found


def _lowered(text: str) -> str:
    """The text in lower case, character for character, so that places stay what they are."""
    low = text.lower()
    if len(low) != len(text):
        # A few capital letters have two small ones.
        low = "".join(small if len(small := each.lower()) == 1 else each for each in text)
    return low
