"""The parts of a report's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from noria.evaluation import metrics
from noria.evaluation.advice import Advice
from noria.evaluation.measured import Measured
from noria.evaluation.page.markup import Html, el, join, quoted
from noria.evaluation.page.plots import Bar, forest, shares
from noria.evaluation.slices import Group
from noria.types import Decision, Interval, Metrics, Report, RowScore

EXAMPLES = 10
"""Rows shown of each of those that got worse and those that got better."""
UNKNOWN = "not measured"


def tone(interval: Interval) -> str:
    """`better` or `worse` where the interval leaves 0 out, else `even`."""
    low, high = (interval.low, interval.high) if interval.higher_is_better else (-interval.high, -interval.low)
    return "better" if low > 0 else "worse" if high < 0 else "even"


def told(interval: Interval) -> str:
    """Gain with its bounds and what they say."""
    word = {"better": "better", "worse": "worse", "even": "not certain"}[tone(interval)]
    return f"{interval.gain:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}] {word}"


def verdict(decision: Decision | None) -> Html:
    """What the gate said, or that it has not spoken."""
    if decision is None:
        return el("p", "The gate has not decided on this report yet, or did not when this page was written.",
                  class_="verdict")  # fmt: skip
    return el("p", el("strong", decision.verdict), f": {decision.because}", class_=f"verdict {decision.verdict}")


def gains(report: Report) -> Html:
    """Every slice and metric with its paired interval, as a plot and as a table."""
    rows = [(group, each) for group, found in report.intervals.items() for each in found.values()]
    if not rows:
        return el("p", "The report has no rows.", class_="none")
    scales: dict[str, list[Bar]] = {}
    for group, each in rows:
        bar = Bar(f"{group} · {each.name}", each.low, each.gain, each.high, told(each), tone(each))
        scales.setdefault(_scale(each.name), []).append(bar)
    caption = (
        f"Gain of the candidate over the champion, {rows[0][1].confidence:.0%} paired intervals; right of 0 is more."
    )
    plots = [forest(bars, f"{caption} In {scale}." if scale else caption) for scale, bars in scales.items()]
    return join(el("h2", "Gains"), *plots, _metrics(rows))


def _scale(metric: str) -> str:
    """What a metric is measured in, where it does not lie between 0 and 1: each such scale has an axis of its own."""
    if metric not in metrics.names():
        return metric
    found = metrics.find(metric)
    return "" if found.low >= -1 and found.high <= 1 else found.unit or metric


def advices(found: Sequence[Advice]) -> Html:
    """What to do next."""
    if not found:
        return join()
    items = [el("li", el("strong", f"{_sentence(each.fact)} "), _sentence(each.advice)) for each in found]
    return join(el("h2", "What to do next"), el("ul", items))


def grouped(groups: Sequence[Group]) -> Html:
    """Groups of rows on which the candidate is worse, then all that were looked at."""
    head = el("h2", "Groups of rows")
    if not groups:
        return join(head, el("p", "No group has enough rows to be looked at by itself.", class_="soft"))
    lost = [each for each in groups if each.worse]
    finding = (
        f"The candidate is worse on {len(lost)} of {len(groups)} groups."
        if lost
        else f"On none of {len(groups)} groups is the candidate certainly worse."
    )
    bars = [
        Bar(each.name, each.interval.low, each.interval.gain, each.interval.high, _told_group(each),
            "worse" if each.worse else "even")
        for each in groups
    ]  # fmt: skip
    caption = (
        f"Gain in {groups[0].interval.name}, the surest loss first. p and the intervals are adjusted for the number of "
        "groups (Holm): were the candidate worse on none, 95 of 100 reports would name none."
    )
    shown, more = bars[: max(12, len(lost))], bars[max(12, len(lost)) :]
    rest = el("details", el("summary", f"{len(more)} more"), forest(more, caption)) if more else None
    return join(head, el("p", finding, class_="worse" if lost else None), forest(shown, caption), rest)


def examples(report: Report, metric: str) -> Html:
    """How many rows changed, and those that got worse and better, most first."""
    higher = next((each[metric].higher_is_better for each in report.intervals.values() if metric in each), True)
    sign = 1.0 if higher else -1.0
    gains = [(sign * (row.after[metric] - row.before[metric]), row) for row in report.rows if metric in row.after]
    worse = sorted(((gain, row) for gain, row in gains if gain < 0), key=lambda each: (each[0], each[1].id))
    better = sorted(((gain, row) for gain, row in gains if gain > 0), key=lambda each: (-each[0], each[1].id))
    same = len(gains) - len(worse) - len(better)
    counts = [("worse", len(worse), "worse"), ("the same", same, "even"), ("better", len(better), "better")]
    return join(
        el("h2", "Rows"),
        shares(counts, f"All {len(gains)} rows by {metric}."),
        _listed("Got worse", worse, metric),
        _listed("Got better", better, metric),
    )


def costs(sides: Mapping[str, Measured | None]) -> Html:
    """Latency, cost, memory and energy of each side."""
    names = ("answers", "p50", "p95", "first token, p50", "tokens", "cost of 1,000", "memory", "energy of 1,000", "how")
    rows = []
    for name, each in sides.items():
        cells = [UNKNOWN] * len(names) if each is None else _cells(each)
        rows.append([name, *cells])
    return join(el("h2", "Latency and cost"), table(["", *names], rows, numbers=range(1, len(names))))


def provenance(refs: Sequence[tuple[str, str]], checks: Metrics) -> Html:
    """What was compared, by immutable names, and how to do it again."""
    rows = [join(el("dt", name), el("dd", el("code", value))) for name, value in refs]
    rows += [join(el("dt", f"check: {name}"), el("dd", f"{value:.1%}")) for name, value in checks.items()]
    return join(el("h2", "What was compared"), el("dl", rows))


def again(commands: Sequence[str]) -> Html:
    """How to repeat it."""
    return join(el("h2", "How to repeat it"), el("pre", el("code", "\n".join(commands)), tabindex="0"))


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "", numbers: Sequence[int] = ()
) -> Html:
    """A table; the columns `numbers` are set to the right."""

    def kind(number: int) -> str | None:
        return "number" if number in numbers else None

    head = el("tr", [el("th", name, scope="col", class_=kind(number)) for number, name in enumerate(columns)])
    body = []
    for row in rows:
        first = el("th", row[0], scope="row")
        body.append(el("tr", first, [el("td", cell, class_=kind(number)) for number, cell in enumerate(row[1:], 1)]))
    title = el("caption", caption) if caption else None
    whole = el("table", title, el("thead", head), el("tbody", body))
    return el("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption or columns[-1])


def _told_group(each: Group) -> str:
    interval, word = each.interval, " worse," if each.worse else ""
    return (
        f"{interval.gain:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]{word} {interval.rows} rows, p {each.p:.2g}"
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _metrics(rows: Sequence[tuple[str, Interval]]) -> Html:
    columns = ["slice", "metric", "champion", "candidate", "gain", "low", "high", "rows"]
    cells = [
        [group, each.name, _bounded(each.before, each.before_bounds), _bounded(each.after, each.after_bounds),
         f"{each.gain:+.4f}", f"{each.low:+.4f}", f"{each.high:+.4f}", str(each.rows)]
        for group, each in rows
    ]  # fmt: skip
    return table(columns, cells, "Scores by slice", numbers=range(2, 8))


def _bounded(value: float, bounds: tuple[float, float] | None) -> str:
    return f"{value:.4f}" if bounds is None else f"{value:.4f} [{bounds[0]:.3f}, {bounds[1]:.3f}]"


def _listed(title: str, rows: Sequence[tuple[float, RowScore]], metric: str) -> Html:
    if not rows:
        return join(el("h3", f"{title}: none"))
    more = f", {EXAMPLES} of {len(rows)}" if len(rows) > EXAMPLES else ""
    return join(el("h3", f"{title}{more}"), *(_example(row, metric) for _, row in rows[:EXAMPLES]))


def _example(row: RowScore, metric: str) -> Html:
    before, after = row.before[metric], row.after[metric]
    tags = ", ".join([row.slice, *(f"{name} {value}" for name, value in row.tags.items())])
    return el(
        "article",
        el("h4", f"{metric} {before:.3f} to {after:.3f}"),
        _part("Question", row.question),
        _part("Wanted", row.target),
        el("div", _part("Champion", row.champion), _part("Candidate", row.candidate), class_="sides"),
        el("p", f"{tags} · row ", el("code", row.id), class_="soft"),
        class_="example",
    )


def _part(label: str, text: str) -> Html:
    return el("div", el("p", label, class_="label"), quoted(text))


def _cells(each: Measured) -> list[str]:
    def shown(value: float | None, form: str) -> str:
        return UNKNOWN if value is None else form.format(value)

    return [
        str(each.answers), shown(each.p50_ms, "{:.0f} ms"), shown(each.p95_ms, "{:.0f} ms"),
        shown(each.first_token_ms, "{:.0f} ms"), shown(each.tokens, "{:.1f}"), shown(each.cost_per_1000, "{:.4f}"),
        shown(each.memory_gib, "{:.2f} GiB"), shown(each.wh_per_1000, "{:.2f} Wh"), each.how,
    ]  # fmt: skip
