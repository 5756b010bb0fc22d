"""Steps that change texts: Unicode, white space, markup, addresses, characters.

Patterns are RE2's, which knows no look-around. Each step first asks which strings need it, with one pattern over all of
them; few do, and only those are changed. Each done twice changes no more than done once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from noria.datasets.texts import Change, Opened, Strings, Texts, at, each, where

if TYPE_CHECKING:
    import pyarrow as pa

_DROPPED = (
    # Controls but tab and line ends, soft hyphens, zero-width spaces, direction marks, byte order marks, noncharacters.
    # Zero-width joiners stay: Persian, Hindi and emoji need them.
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{84}\x{86}-\x{9f}\x{ad}\x{200b}\x{200e}\x{200f}\x{202a}-\x{202e}"
    r"\x{2060}-\x{2069}\x{fdd0}-\x{fdef}\x{feff}\x{fffe}\x{ffff}]"
)
_PRESENTATION = (
    # Ligatures, Hebrew and Arabic presentation forms, full-width letters and digits, half-width Katakana. Not the words
    # in one character (U+FDF0 on), which are written as such, nor full-width punctuation, which is Chinese punctuation.
    r"\x{fb00}-\x{fb4f}\x{fb50}-\x{fdcf}\x{fe70}-\x{fefc}\x{ff10}-\x{ff19}\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a}"
    r"\x{ff66}-\x{ff9f}"
)
_COMPOSED = (
    # Characters that NFC leaves alone whatever stands beside them; a text of nothing else needs no look at all.
    r"\t\n\r -~\x{85}\x{a0}-\x{ac}\x{ae}-\x{2ff}\x{370}-\x{373}\x{376}-\x{37d}\x{388}-\x{3ff}\x{400}-\x{482}"
    r"\x{48a}-\x{52f}\x{5d0}-\x{5ea}\x{621}-\x{63a}\x{640}-\x{64a}\x{660}-\x{66f}\x{671}-\x{6d5}\x{3001}-\x{3029}"
    r"\x{3041}-\x{3096}\x{30a1}-\x{30fa}\x{30fc}\x{4e00}-\x{9fff}\x{2002}-\x{200a}\x{2010}-\x{2027}\x{202f}-\x{205e}"
    r"\x{20a0}-\x{20bf}\x{2190}-\x{21ff}\x{2500}-\x{2adb}\x{2add}-\x{2bff}\x{ff00}-\x{ff0f}"
    r"\x{ff1a}-\x{ff20}\x{ff3b}-\x{ff40}\x{ff5b}-\x{ff65}\x{1f300}-\x{1faff}\x{fe0f}"
)
_FOLDED = (
    # Characters that neither NFKC nor casefold changes, whatever stands beside them: letters without upper case, signs.
    r"\x{a1}-\x{a7}\x{a9}\x{ab}\x{ac}\x{ae}\x{b0}\x{b1}\x{b6}\x{b7}\x{bb}\x{bf}\x{d7}\x{e0}-\x{ff}\x{3b1}-\x{3c1}"
    r"\x{3c3}-\x{3ce}\x{430}-\x{45f}\x{5d0}-\x{5ea}\x{621}-\x{63a}\x{640}-\x{64a}\x{e01}-\x{e32}\x{2012}-\x{2015}"
    r"\x{2018}-\x{2022}\x{20a9}-\x{20bf}\x{2190}-\x{21ff}\x{2500}-\x{2a0b}\x{3001}-\x{3029}\x{3041}-\x{3096}"
    r"\x{30a1}-\x{30fa}\x{30fc}\x{4e00}-\x{9fff}\x{1f300}-\x{1f6d7}"
)
_SPACES = r"\t\x0b\x0c\x1c-\x1f\x{a0}\x{1680}\x{2000}-\x{200a}\x{202f}\x{205f}\x{3000}"
_LINE_END = r"\r\n|[\r\x{85}\x{2028}\x{2029}]"
_UNTIDY = rf"[{_SPACES}\r\x{{85}}\x{{2028}}\x{{2029}}]|  | \n|\n[ \n]|^[ \n]|[ \n]$"

_TAGS = (
    "a|abbr|acronym|address|article|aside|audio|b|big|blockquote|body|br|button|canvas|center|cite|code|col|colgroup|dd|"
    "del|details|dfn|div|dl|dt|em|embed|fieldset|figcaption|figure|font|footer|form|frame|frameset|h[1-6]|head|header|"
    "hr|html|i|iframe|img|input|ins|kbd|label|legend|li|link|main|map|mark|meta|nav|noscript|object|ol|option|p|param|"
    "picture|pre|q|s|samp|script|section|select|small|source|span|strike|strong|style|sub|summary|sup|svg|table|tbody|"
    "td|template|textarea|tfoot|th|thead|time|title|tr|tt|u|ul|var|video|wbr"
)
_MARKUP = (
    rf"(?is)<!--.*?-->|<script\b[^<>]*>.*?</script\s*>|<style\b[^<>]*>.*?</style\s*>|<!doctype\b[^<>]*>"
    rf"|</?(?:{_TAGS})(?:\s[^<>]*)?/?>"
)
_REFERENCE = r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});"
_URL = r"""(?i)(?:https?://|www\.)[^\s<>"'`{|}\\^]*[^\s<>"'`{|}\\^.,;:!?()\[\]]"""

_SIGNS = r"\p{P}\p{Sc}\p{Sm}"


def unicode(form: Literal["NFC", "NFKC"], presentation: bool) -> Opened:
    """Step `unicode`: the form of Unicode (UAX 15), without presentation forms where wanted, without controls."""

    import unicodedata

    # Not Arrow's utf8_normalize, whose NFC and NFKC leave letters decomposed (apache/arrow issue 51225).
    normal = each(lambda text: unicodedata.normalize(form, text))
    plain = _replaced(rf"[{_PRESENTATION}]+", lambda found: unicodedata.normalize("NFKC", found))

    def change(strings: pa.Array) -> pa.Array:
        import pyarrow.compute as pc

        if form == "NFKC":
            strings = normal(strings)
        elif presentation:
            strings = where(strings, f"[{_PRESENTATION}]", plain)
        strings = where(strings, _DROPPED, lambda some: pc.replace_substring_regex(some, _DROPPED, ""))
        return normal(strings) if form == "NFKC" else composed(strings)

    needing = r"[^\t\n\r -~]" if form == "NFKC" else f"[^{_COMPOSED}]"
    return lambda: Change(needing, change)


def composed(strings: pa.Array) -> pa.Array:
    """Unicode NFC."""
    import unicodedata

    return where(strings, f"[^{_COMPOSED}]", each(lambda text: unicodedata.normalize("NFC", text)))


def whitespace() -> Opened:
    """Step `whitespace`: one space between words, none at the ends of lines, no empty line."""
    return lambda: Change(_UNTIDY, _tidy)


def markup() -> Opened:
    """Step `markup`: tags become spaces and references their characters, until none is left."""
    import html

    def change(strings: pa.Array) -> pa.Array:
        import pyarrow.compute as pc

        strings = where(strings, _REFERENCE, each(html.unescape))
        return where(strings, _MARKUP, lambda some: pc.replace_substring_regex(some, _MARKUP, " "))

    return lambda: Change(f"{_MARKUP}|{_REFERENCE}", lambda strings: _until_stable(strings, change))


def urls(replace: str) -> Opened:
    """Step `urls`: web addresses become `replace`; punctuation behind them stays."""

    def change(strings: pa.Array) -> pa.Array:
        import pyarrow.compute as pc

        return pc.replace_substring_regex(strings, _URL, replace.replace("\\", "\\\\"))

    return lambda: Change(_URL, change)


def special_characters(punctuation: bool, keep: str) -> Opened:
    """Step `special-characters`: pictographs with what joins them go, and punctuation where it is not wanted."""
    kept = "".join(rf"\x{{{ord(character):x}}}" for character in keep)
    one = rf"[^\p{{L}}\p{{M}}\p{{N}}\p{{Z}}\p{{Cc}}\p{{Cf}}{_SIGNS if punctuation else ''}{kept}]"
    pattern = rf"\x{{200d}}?{one}[\x{{fe00}}-\x{{fe0f}}\x{{200d}}]*"

    def change(strings: pa.Array) -> pa.Array:
        import pyarrow.compute as pc

        return pc.replace_substring_regex(strings, pattern, "")

    return lambda: Change(one, change)


def lowercase() -> Opened:
    """Step `lowercase`: lower case in all scripts."""

    def change(strings: pa.Array) -> pa.Array:
        import pyarrow.compute as pc

        return composed(pc.utf8_lower(strings))

    return lambda: Change(r"\p{Lu}|\p{Lt}|[^\x00-\x7f]", change)


def folded(strings: pa.Array, fold: Strings) -> pa.Array:
    """Strings in lower case, by `fold` where they hold characters that NFKC and casefold may change."""
    import pyarrow as pa
    import pyarrow.compute as pc

    # Arrow's ascii_lower (25.0.1) breaks arrays whose first offset is not 0, such as slices that an engine gives.
    strings = pc.ascii_lower(pa.concat_arrays([strings]))
    pattern = rf"[^\x00-\x7f{_FOLDED}]"
    return at(strings, pc.invert(pc.string_is_ascii(strings)), lambda some: where(some, pattern, fold))


def digests(texts: Texts) -> pa.Array:
    """BLAKE2b of each text without case, compatibility forms (NFKC) and white space: equal for exact duplicates."""
    import hashlib

    import pyarrow as pa
    import pyarrow.compute as pc

    def on_one_line(strings: pa.Array) -> pa.Array:
        return pc.replace_substring(where(strings, _UNTIDY, _tidy), "\n", " ")

    text = where(folded(texts.text, each(_fold)), rf"\n|{_UNTIDY}", on_one_line)
    found = [hashlib.blake2b(one, digest_size=16).hexdigest() for one in text.cast(pa.binary()).to_pylist()]
    return pa.array(found, pa.string())


def _fold(text: str) -> str:
    import unicodedata

    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _tidy(strings: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    strings = pc.replace_substring_regex(strings, _LINE_END, "\n")
    # Single spaces, which are most, match nothing here: replacing each by itself takes 20 times as long.
    strings = pc.replace_substring_regex(strings, rf"[ {_SPACES}]*[{_SPACES}][ {_SPACES}]*|  +", " ")
    strings = pc.replace_substring_regex(strings, r" *\n[ \n]*", "\n")
    return pc.utf8_trim(strings, " \n")


def _replaced(pattern: str, change: Callable[[str], str]) -> Strings:
    """Change what a pattern, the same in RE2's words and Python's, finds in strings."""
    import re

    compiled = re.compile(re.sub(r"\\x\{([0-9a-f]+)\}", lambda code: re.escape(chr(int(code[1], 16))), pattern))
    return each(lambda text: compiled.sub(lambda found: change(found[0]), text))


def _until_stable(strings: pa.Array, change: Strings) -> pa.Array:
    """Change strings until none changes; each change must make them shorter."""
    import pyarrow.compute as pc

    changed = change(strings)
    return at(changed, pc.not_equal(changed, strings), lambda some: _until_stable(some, change))
