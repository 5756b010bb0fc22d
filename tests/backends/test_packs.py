"""Packs hold every row whole, share equal beginnings, and let no row look at another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.backends.peft_job import Row
from noria.backends.peft_loop import learning_rate
from noria.backends.peft_packs import packed

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12)


def rows_of(lists: list[list[int]]) -> dict[int, Row]:
    return {number: Row(tuple(tokens), tuple(tokens)) for number, tokens in enumerate(lists)}


@given(ROWS, st.integers(1, 40))
def test_every_row_is_in_one_pack_with_its_tokens_in_order(lists: list[list[int]], limit: int) -> None:
    rows = rows_of(lists)
    packs = packed(rows, [(number,) for number in rows], limit)
    assert sorted(number for pack in packs for number in pack.rows) == sorted(rows)
    for pack in packs:
        assert len(pack.rows) == 1 or len(pack.tokens) <= limit
        for number, places in zip(pack.rows, pack.places, strict=True):
            assert tuple(pack.tokens[place] for place in places) == rows[number].tokens
            assert tuple(pack.positions[place] for place in places) == tuple(range(len(places)))


@given(ROWS)
def test_a_token_sees_those_before_it_in_its_row_and_no_other(lists: list[list[int]]) -> None:
    import torch

    rows = rows_of(lists)
    [pack] = packed(rows, [(number,) for number in rows], 10_000)
    seen = pack.mask(torch.device("cpu"))[0, 0]
    for places in pack.places:
        for depth, place in enumerate(places):
            assert seen[place].nonzero().flatten().tolist() == sorted(places[: depth + 1])


@given(ROWS)
def test_equal_beginnings_are_computed_once(lists: list[list[int]]) -> None:
    rows = rows_of(lists)
    [pack] = packed(rows, [(number,) for number in rows], 10_000)
    beginnings = {tuple(tokens[: end + 1]) for tokens in lists for end in range(len(tokens))}
    assert len(pack.tokens) == len(beginnings)


@given(ROWS, st.integers(1, 40))
def test_what_belongs_together_stays_together(lists: list[list[int]], limit: int) -> None:
    rows = rows_of(lists + lists)
    groups = [(number, number + len(lists)) for number in range(len(lists))]
    for pack in packed(rows, groups, limit):
        assert all((number + len(lists)) % len(rows) in pack.rows for number in pack.rows)


@pytest.mark.slow
def test_the_learning_rate_rises_and_falls_as_transformers_has_it() -> None:
    import torch
    from transformers import get_cosine_schedule_with_warmup

    for total in (1, 2, 7, 100):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        scheduler = get_cosine_schedule_with_warmup(optimizer, max(1, round(0.06 * total)), total)
        for step in range(total):
            assert learning_rate(step, total, 0.5) == pytest.approx(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
