"""HTML that is escaped by construction: plain strings are text, only `Html` is markup."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

_VOID = frozenset(("meta", "line", "rect", "circle"))
"""Elements without content; those of SVG would swallow what follows if they were not closed."""
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Html(str):
    """A string that is markup already; only this module makes one."""

    __slots__ = ()


Child = str | Iterable[str] | None


def el(tag: str, *children: Child, **attributes: str | float | bool | None) -> Html:
    """An element. Children that are no `Html` are text; attributes of None or False are left out.

    A trailing underscore of an attribute's name is dropped and others become hyphens: `class_`, `aria_label`.
    """
    parts = []
    for name, value in attributes.items():
        if value is not None and value is not False:
            shown = name.rstrip("_").replace("_", "-")
            parts.append(f" {shown}" if value is True else f' {shown}="{_text(_number(value))}"')
    head = f"<{tag}{''.join(parts)}"
    return Html(f"{head} />" if tag in _VOID else f"{head}>{join(*children)}</{tag}>")


def join(*children: Child) -> Html:
    """Children one after the other."""
    made = []
    for child in children:
        if child is None:
            continue
        each = (child,) if isinstance(child, str) else child
        made += [part if isinstance(part, Html) else _text(part) for part in each]
    return Html("".join(made))


def quoted(text: str) -> Html:
    """Somebody's text in a box of its own: line ends stay, and its direction cannot run into what stands beside it."""
    return el("div", text or "(empty)", class_="quoted" if text else "quoted none", dir="auto")


def styles(css: str) -> Html:
    """A style sheet of ours, which is not escaped."""
    return Html(f"<style>{css}</style>")


def document(title: str, head: Html, body: Html, lang: str = "en") -> str:
    """A whole page that can neither run scripts nor ask for anything, in any browser that knows the policy."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    metas = join(
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
    )
    return f"<!doctype html>\n{el('html', el('head', metas, head), el('body', body), lang=lang)}\n"


def _number(value: str | float | bool) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _text(text: str) -> str:
    return escape(_CONTROL.sub("\ufffd", text), quote=True)
