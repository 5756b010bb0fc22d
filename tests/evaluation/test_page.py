"""A report's page: one file that asks for nothing, hostile answers stay text, and its structure is the golden one."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_reports import made

from noria.evaluation import advice, page, slices
from noria.evaluation.measured import Measured
from noria.evaluation.page import plots
from noria.evaluation.page.markup import Html, el, join
from noria.evaluation.slices import Group
from noria.types import Decision, Report

GOLDEN = Path(__file__).parent / "report.golden.txt"
HOSTILE = (
    "<script>alert(1)</script>",
    "</div></main><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "<!-- ]]> <style>*{display:none}</style>",
    "<svg><a xlink:href='javascript:alert(1)'>x</a></svg>",
    "zero \x00 escape \x1b[31m \ud800 \u202e reversed",
)
SHOWN = ("class", "role", "scope", "dir", "lang", "tabindex")


class Outline(HTMLParser):
    """Elements by depth with what makes their role, headings with their text; faults of nesting raise."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.lines: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = "".join(f" {name}={value}" for name, value in attrs if name in SHOWN and value)
        self.lines.append(f"{'  ' * len(self.open)}{tag}{told}")
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h1", "h2", "h3", "h4", "th", "dt", "title") and data.strip():
            self.lines[-1] += f": {data.strip()}"


def outline(text: str) -> Outline:
    found = Outline()
    found.feed(text)
    found.close()
    assert found.open == []
    return found


def sheet(report: Report, groups: list[Group] | None = None) -> page.Sheet:
    found = slices.groups(report) if groups is None else groups
    took = Measured(how="as served", answers=30, p50_ms=812.3, cost_per_1000=0.02)
    return page.Sheet(
        report, found, advice.of(report, advice.Known(groups=found)),
        Decision(verdict="refuse", because="it <b>lost</b>", evidence={}), {str(report.candidate.ref): took},
        [("dataset", "dataset:helpdesk@0123456789abcdef")], ["noria run report --task helpdesk"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def report() -> Report:
    return made(120, gain=0.05, lost={"ru": -0.4})


def test_the_structure_is_the_golden_one(report: Report) -> None:
    found = "\n".join(outline(page.of(sheet(report))).lines) + "\n"
    assert found == GOLDEN.read_text()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_texts(report: Report, text: str) -> None:
    row = report.rows[0].model_copy(
        update={
            "candidate": text, "champion": text, "question": text, "target": text, "slice": text, "tags": {text: text},
            "before": {"token_f1": 1.0}, "after": {"token_f1": 0.0},
        }
    )  # fmt: skip
    hurt = report.model_copy(update={"rows": (row, *report.rows[1:])})
    written = page.of(sheet(hurt, groups=[])).encode().decode()
    found = outline(written)
    assert {tag for tag, _, _ in found.attributes}.isdisjoint({"script", "img", "iframe", "object", "a", "link"})
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]
    assert written.count("<style>") == 1
    assert re.search("[\x00-\x08\x1b]", written) is None


def test_nothing_is_asked_for(report: Report) -> None:
    found = outline(page.of(sheet(report)))
    policy = next(value for tag, name, value in found.attributes if tag == "meta" and name == "content")
    assert policy.startswith("default-src 'none'")
    assert not [each for each in found.attributes if each[1] in ("src", "href", "xlink:href", "action", "srcset")]
    assert "url(" not in page.of(sheet(report))
    assert "@import" not in page.of(sheet(report))


def test_pictures_have_words_and_nothing_is_made_up(report: Report) -> None:
    written = page.of(sheet(report))
    found = outline(written)
    pictures = [line for line in found.lines if line.strip().startswith("svg")]
    assert pictures
    assert all("role=img" in line for line in pictures)
    assert len([1 for tag, name, value in found.attributes if (tag, name) == ("svg", "aria-label") and value]) == len(
        pictures
    )
    # The champion has not served, and nobody measured memory.
    assert written.count("not measured") >= 8


def test_the_rows_that_lost_most_come_first(report: Report) -> None:
    written = page.of(sheet(report))
    worst = min(report.rows, key=lambda row: row.after["token_f1"] - row.before["token_f1"])
    best = max(report.rows, key=lambda row: row.after["token_f1"] - row.before["token_f1"])
    assert written.index(worst.id) < written.index("Got better") < written.index(best.id)


def test_a_report_without_rows_has_a_page(report: Report) -> None:
    empty = report.model_copy(update={"rows": (), "intervals": {}})
    assert "no rows" in page.of(page.Sheet(empty))


def test_markup_escapes_strings_and_trusts_markup_only() -> None:
    assert el("p", "a < b & c", title='"') == '<p title="&quot;">a &lt; b &amp; c</p>'
    assert join(el("b", "x"), "<i>", None, ["<", el("i")]) == "<b>x</b>&lt;i&gt;&lt;<i></i>"
    assert el("line", x1=0.5, hidden=False, data_x=None) == '<line x1="0.5" />'
    assert isinstance(join(), Html)


@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.1), (0.0, 0.0), (0.503, 0.5031), (-3.0, 1200.0), (0.9, 1.0)])
def test_axes_hold_what_they_show(low: float, high: float) -> None:
    written = plots.forest([plots.Bar("a", low, (low + high) / 2, high, "v", "even")], "caption")
    places = [float(each) for each in re.findall(r'x[12]="([-0-9.e]+)"', written)]
    assert all(0 <= place <= plots.WIDTH for place in places)
