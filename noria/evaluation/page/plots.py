"""Plots as inline SVG whose words are HTML, so that they stay readable at phone width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from noria.evaluation.page.markup import Html, el, join

WIDTH = 1000.0
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Bar:
    """One interval: its label, point and bounds, what is written beside it and how it is coloured."""

    label: str
    low: float
    point: float
    high: float
    value: str
    tone: str


@dataclass(frozen=True, slots=True)
class Dot:
    """One point of a scatter plot."""

    label: str
    x: float
    y: float


def forest(bars: Sequence[Bar], caption: str, zero: bool = True) -> Html:
    """Intervals below one another on one axis; with `zero` the axis holds 0, drawn as a line.

    A bound that does not exist (an infinite one) is drawn as the end of the axis.
    """
    ends = [end for bar in bars for end in (bar.low, bar.point, bar.high) if math.isfinite(end)]
    ends += [0.0] if zero else []
    ticks = _ticks(min(ends), max(ends))
    low, high = ticks[0], ticks[-1]

    def place(value: float) -> float:
        return WIDTH * (min(max(value, low), high) - low) / (high - low)

    origin = el("line", class_="zero", x1=place(0), x2=place(0), y1=0.0, y2=20.0) if zero else None
    rows = [
        el(
            "div",
            el("div", bar.label, class_="label-cell"),
            el(
                "svg",
                origin,
                el("line", class_=f"span {bar.tone}", x1=place(bar.low), x2=place(bar.high), y1=10.0, y2=10.0),
                el("line", class_=f"point {bar.tone}", x1=place(bar.point), x2=place(bar.point), y1=5.0, y2=15.0),
                viewBox=f"0 0 {WIDTH:g} 20", preserveAspectRatio="none", role="img",
                aria_label=f"{bar.label}: {bar.value}",
            ),
            el("div", bar.value, class_=f"value {bar.tone}"),
        )
        for bar in bars
    ]  # fmt: skip
    marks = [
        el(
            "span", _short(tick, ticks), style=f"left:{place(tick) / WIDTH:.2%}",
            class_="first" if tick == low else "last" if tick == high else None,
        )
        for tick in ticks
    ]  # fmt: skip
    axis = el("div", el("div", class_="pad"), el("div", marks, class_="axis", aria_hidden="true"), el("div"))
    return el("figure", el("div", rows, axis, class_="bars"), el("figcaption", caption))


def shares(counts: Sequence[tuple[str, int, str]], caption: str) -> Html:
    """One bar that is shared out: label, count and tone of each part."""
    total = max(1, sum(count for _, count, _ in counts))
    parts, start = [], 0.0
    for _, count, tone in counts:
        width = WIDTH * count / total
        parts.append(el("rect", class_=tone, x=round(start, 2), y=0.0, width=round(width, 2), height=20.0))
        start += width
    told = ", ".join(f"{label} {count}" for label, count, _ in counts)
    words = join(
        *(
            join(el("span", "■ ", class_=tone, aria_hidden="true"), f"{label} {count} ({count / total:.0%})   ")
            for label, count, tone in counts
        )
    )
    svg = el(
        "svg", parts, class_="stack", viewBox=f"0 0 {WIDTH:g} 20", preserveAspectRatio="none", role="img",
        aria_label=told,
    )  # fmt: skip
    return el("figure", svg, el("p", words), el("figcaption", caption))


def scatter(dots: Sequence[Dot], across: str, up: str, caption: str) -> Html:
    """Points with their names beside them."""
    left, right, top, bottom = 52.0, 350.0, 14.0, 210.0
    xs, ys = _ticks(0.0, max(dot.x for dot in dots)), _ticks(min(dot.y for dot in dots), max(dot.y for dot in dots))

    def at(dot: Dot) -> tuple[float, float]:
        across_share = (dot.x - xs[0]) / (xs[-1] - xs[0])
        up_share = (dot.y - ys[0]) / (ys[-1] - ys[0])
        return round(left + across_share * (right - left), 1), round(bottom - up_share * (bottom - top), 1)

    drawn: list[Html] = [
        el("line", class_="frame", x1=left, x2=right, y1=bottom, y2=bottom),
        el("line", class_="frame", x1=left, x2=left, y1=top, y2=bottom),
    ]
    for tick in xs:
        drawn.append(el("text", _short(tick, xs), class_="tick", x=at(Dot("", tick, ys[0]))[0], y=bottom + 16,
                        text_anchor="end" if tick == xs[-1] else "middle"))  # fmt: skip
    for tick in ys:
        drawn.append(el("text", _short(tick, ys), class_="tick", x=left - 6, y=at(Dot("", xs[0], tick))[1] + 4,
                        text_anchor="end"))  # fmt: skip
    for dot in dots:
        x, y = at(dot)
        end = x > (left + right) / 2
        drawn.append(el("circle", cx=x, cy=y, r=4.0))
        drawn.append(el("text", dot.label, x=x - 8 if end else x + 8, y=y - 6, text_anchor="end" if end else "start"))
    drawn.append(el("text", across, class_="tick", x=right, y=bottom + 34, text_anchor="end"))
    drawn.append(el("text", up, class_="tick", x=left, y=top - 3))
    told = "; ".join(f"{dot.label}: {across} {dot.x:.3g}, {up} {dot.y:.3g}" for dot in dots)
    return el(
        "figure",
        el("svg", drawn, class_="map", viewBox="0 0 360 250", role="img", aria_label=told),
        el("figcaption", caption),
    )


def _ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers that hold both ends."""
    if high - low < 1e-9:
        low, high = low - 0.05, high + 0.05
    rough = (high - low) / (wanted - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in _STEPS if power * each >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * number, 10) for number in range(first, max(last, first + 1) + 1)]


def _short(value: float, ticks: Sequence[float]) -> str:
    step = ticks[1] - ticks[0]
    # One digit more than the step's first, for steps of 2.5.
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    digits += round(step * 10**digits, 6) % 1 > 0
    return f"{value:.{digits}f}"
