"""Sets of examples: no larger than asked, never what does not fit, from every class, corrections first."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from noria.training import shots
from noria.types import Example, Message, digest_of

WORDS = ("ship", "refund", "battery", "paint", "delivery", "broken", "invoice", "colour")


def row(number: int, target: str = "", origin: str = "source:faq") -> Example:
    first, second = WORDS[number % 8], WORDS[number // 8 % 8]
    return Example(
        id=digest_of(number), origin=origin, slice="task", conversation=f"c{number}", context=None,
        messages=(Message(role="user", content=f"What of my {first} and {second}?"),),
        target=target or f"Answer {number}.", split="train",
    )  # fmt: skip


def always(chosen: Sequence[Example], more: Example) -> bool:
    return True


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 9), st.integers(0, 3), st.integers(1, 4))
def test_sets_are_small_fit_and_repeat(count: int, size: int, trials: int, seed: int, most: int) -> None:
    pool = [row(number, f"class {number % 3}" if seed == 0 else "") for number in range(count)]

    def fits(chosen: Sequence[Example], more: Example) -> bool:
        return len(chosen) < most

    found = list(shots.sets(pool, size, trials, seed, fits))
    assert found == list(shots.sets(pool[::-1], size, trials, seed, fits))
    assert 1 <= len(found) <= trials
    for _, chosen in found:
        assert 1 <= len(chosen) <= min(size, most, count)
        assert len({each.id for each in chosen}) == len(chosen)


def test_what_never_fits_gives_no_set() -> None:
    assert list(shots.sets([row(1), row(2)], 2, 4, 0, lambda chosen, more: False)) == []


def test_each_class_has_its_examples() -> None:
    pool = [row(number, ("yes", "no", "perhaps")[min(number % 10, 2)]) for number in range(40)]
    for _, chosen in shots.sets(pool, 3, 2, 7, always):
        assert {each.target for each in chosen} == {"yes", "no", "perhaps"}


def test_a_diverse_set_has_no_two_alike_and_a_correction_comes_in_and_stands_last() -> None:
    alike = [row(0).model_copy(update={"id": digest_of(f"again {number}")}) for number in range(20)]
    fixed = row(27, origin="traffic:correction")
    pool = [*alike, row(9), row(18), fixed]
    _, chosen = next(iter(shots.sets(pool, 4, 1, 7, always)))
    assert len({each.messages for each in chosen}) == 4
    assert chosen[-1] == fixed


def test_a_huge_pool_is_looked_at_in_part_with_all_its_corrections() -> None:
    pool = [row(number) for number in range(shots.MOST + 200)] + [
        row(number + 5000, origin="traffic:correction") for number in range(30)
    ]
    looked = shots._looked_at(pool, 7)
    assert len(looked) == shots.MOST
    assert sum(map(shots.corrected, looked)) == 30
