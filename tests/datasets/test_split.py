"""The split: sides are for good, near duplicates and conversations stay together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from noria.datasets import split as splitting
from noria.datasets.draft import Draft
from noria.datasets.shingles import char_shingles, jaccard, word_shingles, words
from noria.datasets.split import Plan, Side, Sides
from noria.types import Example, Message, digest_of

TOPICS = ("password", "parcel", "invoice", "voucher", "kettle", "apron", "repair", "गिफ्ट", "订单", "цвет")
TALKS = ("", "c1", "c2", "c3")
WORDINGS = ("Where is my {}?", "where is my {}", "Tell me about the {}, please", "{}", "I lost the {} yesterday")


def example(question: str, answer: str = "Yes.", conversation: str = "", origin: str = "source:a") -> Example:
    identity = digest_of([question, answer, conversation])
    return Example(
        id=identity, origin=origin, slice="task", conversation=conversation or identity,
        messages=(Message(role="user", content=question),), context=None, target=answer, split="train",
    )  # fmt: skip


def split(rows: Iterable[Example], known: Mapping[str, Side], share: float) -> Sides:
    return splitting.split(map(Draft, rows), known, Plan(share))


ROWS = st.lists(
    st.builds(
        lambda topic, wording, answer, conversation: example(wording.format(topic), answer, conversation),
        st.sampled_from(TOPICS), st.sampled_from(WORDINGS), st.sampled_from("xy"), st.sampled_from(TALKS),
    ),
    max_size=25, unique_by=lambda row: row.id,
)  # fmt: skip


def side_of(sides: Sides) -> dict[str, str]:
    rows = (*splitting.on("train", sides.train), *splitting.on("test", sides.test))
    return {row.id: row.split for row in rows}


def _rows(drafts: Iterable[Draft]) -> list[Example]:
    return [draft.example for draft in drafts]


def leaks(sides: Sides) -> list[tuple[str, str]]:
    def near(left: Example, right: Example) -> bool:
        questions = [char_shingles(row.messages[-1].content) for row in (left, right)]
        return jaccard(*questions) >= 0.7 or left.conversation == right.conversation

    return [(left.id, right.id) for left in _rows(sides.train) for right in _rows(sides.test) if near(left, right)]


@settings(deadline=None)
@given(ROWS, ROWS, ROWS)
def test_rows_that_arrive_move_nothing_and_leak_nothing(
    first: Sequence[Example], second: Sequence[Example], third: Sequence[Example]
) -> None:
    known: Sides = Sides()
    rows: dict[str, Example] = {}
    before: dict[str, str] = {}
    for more in (first, second, third):
        rows |= {row.id: row for row in more}
        known = split(rows.values(), known.members, 0.3)
        after = side_of(known)
        assert {row: after[row] for row in before} == before
        assert leaks(known) == []
        assert len(after) + known.bridging == len(rows)
        before = after


@settings(deadline=None)
@given(ROWS)
def test_the_order_of_rows_does_not_matter(rows: list[Example]) -> None:
    assert split(rows, {}, 0.3) == split(rows[::-1], {}, 0.3)


def test_nothing_bridges_in_the_first_split() -> None:
    rows = [example(wording.format(topic)) for wording in WORDINGS for topic in TOPICS]
    assert split(rows, {}, 0.2).bridging == 0


def test_both_sides_have_a_row_where_two_components_are() -> None:
    for share in (0.001, 0.999):
        sides = split([example("How do I pay?"), example("Where is the shop?")], {}, share)
        assert len(sides.train) == len(sides.test) == 1
    alone = split([example("How do I pay?"), example("how do i PAY")], {}, 0.5)
    assert not alone.train or not alone.test


def test_the_share_of_test_rows_is_about_what_was_asked() -> None:
    rows = [example(digest_of(number)) for number in range(1000)]
    assert 150 < len(split(rows, {}, 0.2).test) < 250


def test_a_row_between_both_sides_is_left_out() -> None:
    rows = [example(digest_of(number)) for number in range(40)]
    old = split(rows, {}, 0.5)
    train, test = old.train[0].example, old.test[0].example
    near = example(f"{test.messages[-1].content} ?", "Other.")
    same = [example("Something new altogether", "A", "talk"), example(train.messages[-1].content, "B", "talk")]
    bridge = example(test.messages[-1].content, "C", "talk")
    new = split([*rows, near, *same, bridge], old.members, 0.5)
    assert side_of(new).items() >= side_of(old).items()
    assert leaks(new) == []
    assert new.bridging >= 1


def test_a_side_outlives_an_absence() -> None:
    rows = [example(digest_of(number)) for number in range(20)]
    old = split(rows, {}, 0.5)
    gone = split(rows[:10], old.members, 0.5)
    back = split(rows, gone.members, 0.5)
    assert side_of(back) == side_of(old)


def test_conversations_of_different_sources_are_different() -> None:
    rows = [example(digest_of(n), conversation="1", origin=f"source:{n}") for n in range(30)]
    sides = split(rows, {}, 0.5)
    assert sides.train
    assert sides.test


@given(st.text(alphabet="abÉß订हि ", max_size=20))
def test_words_ignore_case_and_punctuation(text: str) -> None:
    assert words(f"«{text.upper()} a»!") == words(f"{text} a")
    assert jaccard(word_shingles(text), word_shingles(text)) == 1.0


def test_words_of_all_scripts() -> None:
    assert words("Grüße! 3 €, «кот» 订单 हिन्दी में؟ ¿qué?") == [
        "grüsse",
        "3",
        "€",
        "кот",
        "订",
        "单",
        "हिन्दी",
        "में",
        "qué",
    ]
    assert words("?!") == ["?!"]
