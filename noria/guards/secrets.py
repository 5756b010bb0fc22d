"""Secrets in a text: private keys, API keys and tokens by the prefixes their makers gave them, and assigned passwords.

What to expect of it. A prefix of a known maker with a body of the right form is nearly always a key; a body that is
filled up (`sk-xxxxxxxxxxxxxxxxxxxxxxxx`) has too little entropy and is left alone. The rules `assigned` and `bearer`
take any value of 16 characters or more that looks random; they also fire on random-looking examples in documentation
and on digests that are assigned to a name such as `token`. A shorter password is found where a word announces it and
it mixes letters with digits or signs (`password: Sun-42!x`); one that is a plain word is not: nothing tells it from
words.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Final

from noria.types import Finding

REACH: Final = 384
"""Characters after its start within which a finding shows: the header of a JSON Web Token is the longest."""
BEHIND: Final = 40
"""Characters before its start that decide whether something is a finding."""

_LONGEST_KEY = 10_000
_BITS = 3.0
"""Shannon entropy of a key's characters, in bits; a random one of 20 letters and digits has about 3.9."""
_RANDOM_BITS = 3.2
"""The same where no prefix vouches for it; English words of that length have less, or no digit."""

_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_BODY = re.compile(r"(?:(?:Proc-Type|DEK-Info|Version|Comment|Hash):[^\n]{0,200}|[A-Za-z0-9+/=\s\\])*")

_PREFIXED = re.compile(
    r"""
    (?<![A-Za-z0-9_-])(?=[AEGSaghenprsxd0-9])
    (?:
    (?P<aws>(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16})(?![A-Za-z0-9])
    |(?P<google>AIza[\w-]{35}|GOCSPX-[\w-]{28})(?![\w-])
    |(?P<github>gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{22,255})
    |(?P<gitlab>gl(?:pat|dt|rt|cbt)-[\w-]{20,255})
    |(?P<slack>xox[abeoprs]-[A-Za-z0-9-]{10,255}|xapp-[A-Za-z0-9-]{20,255})
    |(?P<stripe>[sr]k_(?:live|test)_[A-Za-z0-9]{16,255}|whsec_[A-Za-z0-9+/]{24,255})
    |(?P<openai>sk-[A-Za-z0-9_-]{20,255})
    |(?P<huggingface>hf_[A-Za-z0-9]{30,64})
    |(?P<npm>npm_[A-Za-z0-9]{36})
    |(?P<pypi>pypi-[A-Za-z0-9_-]{50,255})
    |(?P<sendgrid>SG\.[\w-]{16,32}\.[\w-]{30,64})
    |(?P<digitalocean>do[opr]_v1_[0-9a-f]{64})
    |(?P<noria>noria-[A-Za-z0-9_-]{43})
    |(?P<telegram>[0-9]{8,10}:AA[\w-]{33})
    |(?P<jwt>eyJ[\w-]{8,340}\.eyJ[\w-]{4,8000}(?:\.[\w-]{0,2000})?)
    )
    """,
    re.VERBOSE,
)
"""Rule names are those of the makers."""

_ASSIGNED = re.compile(
    r"""
    (?<![A-Za-z])(?:
    (?:api[_-]?key|secret(?:[_-]?key)?|access[_-]?key|account[_-]?key|auth[_-]?token|token|passwor[dt]|passwd|pwd
        |kennwort|schlüssel|client[_-]?secret)["'`]{0,2}[ ]{0,3}(?:=|:|=>|:=)[ ]{0,3}["'`]{0,2}
        (?P<assigned>[^\s"'`<>,;]{16,255})
    |bearer[ ]{1,3}(?P<bearer>[A-Za-z0-9._~+/=-]{20,4096})
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_ADDRESS = re.compile(
    r"(?<![A-Za-z0-9])[A-Za-z][A-Za-z0-9+]{1,20}://[^\s:@/?#]{0,64}:(?P<password>[^\s:@/?#]{3,128})@(?=[\w\[])"
)
_MARKS = (
    "AKIA", "ASIA", "ABIA", "ACCA", "AIza", "GOCSPX-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-",
    "gldt-", "glrt-", "glcbt-", "xox", "xapp-", "k_live_", "k_test_", "whsec_", "sk-", "hf_", "npm_", "pypi-", "SG.",
    "_v1_", "noria-", ":AA", "eyJ",
)  # fmt: skip
"""Without any of these a text holds no key with a maker's prefix."""
_ASSIGNERS = ("key", "secret", "token", "passwor", "passwd", "pwd", "kennwort", "schlüssel", "bearer")
_ANNOUNCERS = ("pass", "pwd", "kennwort", "mdp", "contraseña", "clave", "haslo", "hasło", "wachtwoord", "senha")
"""Without any of these, in lower case, a text holds no value of the rules of that name."""
_ANNOUNCED = re.compile(
    r"""
    (?<![^\W_])(?:passwor[dt]|passwd|pwd|passcode|passphrase|kennwort|mot[ ]de[ ]passe|mdp|contraseña|clave|haslo|hasło
        |wachtwoord|senha)
    ["'`]{0,2}[ ]?(?P<sign>:=|=>|=|:|is|ist|lautet|est|es|è|to|brzmi)(?:[ ]{1,2}|(?<=[:=>]))["'`„«]?
    (?P<value>[^\s"'`„“”«»<>]{6,64})
    """,
    re.VERBOSE | re.IGNORECASE,
)
_HOOK = re.compile(r"https://hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9+/]{20,100}")
_STAND_INS = re.compile(r"(?i)(?:x{4}|\*{3}|\.{3}|\$\{|\{\{|%\(|your[_-]|example|changeme|placeholder|redacted)")


def find(text: str) -> list[Finding]:
    """Secrets in a text, in order and without overlaps; kinds are private_key, api_key, token and password.

    The score is 1 for an exact form, 0.9 for a known prefix, 0.7 where only a name and the entropy speak for it.
    Time is linear in the length of the text.
    """
    folded = text.lower()
    found = _announced(text) if any(word in folded for word in _ANNOUNCERS) else []
    found += _private_keys(text) if "PRIVATE KEY" in text else []
    found += _prefixed(text)
    if "://" in text:
        found += _addresses(text)
    if any(word in folded for word in _ASSIGNERS):
        found += _assigned(text)
    found.sort(key=lambda each: (each.start, -each.end))
    apart: list[Finding] = []
    for each in found:
        if not apart or each.start >= apart[-1].end:
            apart.append(each)
    return apart


def keys(text: str) -> list[Finding]:
    """Private keys and keys with a maker's prefix alone, in order: what shows early, whatever stands before it."""
    found = _private_keys(text) if "PRIVATE KEY" in text else []
    return found + [each for each in _prefixed(text) if each.rule != "jwt"]


def entropy(value: str) -> float:
    """Shannon entropy of the characters of a value, in bits for each; 0 for an empty one."""
    whole = len(value)
    return -sum(count / whole * math.log2(count / whole) for count in Counter(value).values())


def _private_keys(text: str) -> list[Finding]:
    found: list[Finding] = []
    at = 0
    last = _END.search(text)
    while begin := _BEGIN.search(text, at):
        # Every end is looked for once, however many beginnings there are.
        while last is not None and last.start() < begin.end():
            last = _END.search(text, last.end())
        following = _BEGIN.search(text, begin.end())
        near = last is not None and last.end() - begin.start() <= _LONGEST_KEY
        if last is not None and near and (following is None or last.start() < following.start()):
            end = last.end()
        else:
            body = _BODY.match(text, begin.end(), begin.end() + _LONGEST_KEY)
            end = body.end() if body else begin.end()
        found.append(Finding(kind="private_key", start=begin.start(), end=end, score=1.0, rule="pem"))
        at = end
    return found


def _prefixed(text: str) -> list[Finding]:
    found: list[Finding] = []
    if not any(mark in text for mark in _MARKS):
        return found
    for match in _PREFIXED.finditer(text):
        rule = match.lastgroup or ""
        if entropy(match[0][-64:]) >= _BITS and not _STAND_INS.search(match[0]):
            kind = "token" if rule == "jwt" else "api_key"
            found.append(Finding(kind=kind, start=match.start(), end=match.end(), score=0.9, rule=rule))
    return found


def _addresses(text: str) -> list[Finding]:
    found = [
        Finding(kind="password", start=each.start("password"), end=each.end("password"), score=0.9, rule="address")
        for each in _ADDRESS.finditer(text)
        if not _STAND_INS.search(each["password"])
    ]
    found += [
        Finding(kind="token", start=each.start(), end=each.end(), score=1.0, rule="slack-hook")
        for each in _HOOK.finditer(text)
    ]
    return found


def _announced(text: str) -> list[Finding]:
    """Short passwords after a word for one: of two classes of characters after a sign, of three in a sentence."""
    found: list[Finding] = []
    for match in _ANNOUNCED.finditer(text):
        value = match["value"].rstrip(".,;:)?!")
        classes = (str.islower, str.isupper, str.isdigit, lambda letter: letter in "!#$%&*+=?@^~§€")
        kinds = sum(any(map(is_one, value)) for is_one in classes)
        least = 3 if match["sign"].isalpha() else 2
        if len(value) >= 6 and (kinds >= least or (least == 2 and value.isdigit())) and not _STAND_INS.search(value):
            if not any(letter.isdigit() or letter in "!#$%&*+=?@^~§€" for letter in value) or "://" in value:
                continue
            start = match.start("value")
            found.append(Finding(kind="password", start=start, end=start + len(value), score=0.7, rule="announced"))
    return found


def _assigned(text: str) -> list[Finding]:
    found: list[Finding] = []
    for match in _ASSIGNED.finditer(text):
        rule = match.lastgroup or ""
        value = match[rule].rstrip(".)]}!?")
        if len(value) < 16 or not _random(value):
            continue
        kind = "token" if rule == "bearer" else "password"
        start = match.start(rule)
        found.append(Finding(kind=kind, start=start, end=start + len(value), score=0.7, rule=rule))
    return found


def _random(value: str) -> bool:
    """Whether a value looks like nothing that a person would write: digits among letters, and much entropy."""
    mixed = any(each.isdigit() for each in value) and any(each.isalpha() for each in value)
    return mixed and entropy(value) >= _RANDOM_BITS and "://" not in value and not _STAND_INS.search(value)
