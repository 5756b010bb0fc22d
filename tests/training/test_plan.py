"""Training plans: repetition for what is new, replay for what is known, the same plan for the same seed."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from noria.settings import LoraRecipe
from noria.training.plan import Row, batches

lengths = st.lists(st.integers(1, 300), min_size=1, max_size=60)


def rows(tokens: list[int], new: bool = True, correction: bool = False) -> list[Row]:
    return [Row(number, length, new, correction) for number, length in enumerate(tokens)]


@given(lengths, st.integers(1, 16))
def test_every_new_row_is_seen_once_an_epoch(tokens: list[int], batch: int) -> None:
    recipe = LoraRecipe(epochs=2, batch=batch)
    seen = Counter(number for step in batches(rows(tokens), recipe) for number in step)
    assert seen == {number: 2 for number in range(len(tokens))}
    assert all(len(step) <= batch for step in batches(rows(tokens), recipe))


@given(lengths)
def test_the_same_seed_gives_the_same_plan(tokens: list[int]) -> None:
    assert batches(rows(tokens), LoraRecipe(seed=3)) == batches(rows(tokens), LoraRecipe(seed=3))


def test_corrections_are_repeated_and_known_rows_replayed() -> None:
    known = [Row(number, 50, False, False) for number in range(30)]
    corrections = [Row(number, 50, True, True) for number in range(30, 40)]
    recipe = LoraRecipe(epochs=1, correction_epochs=6, replay=0.5)
    seen = Counter(number for step in batches([*known, *corrections], recipe) for number in step)
    assert all(seen[number] == 6 for number in range(30, 40))
    assert sum(seen[number] for number in range(30)) == 30


def test_nothing_new_is_nothing_to_learn() -> None:
    assert batches(rows([10, 20], new=False), LoraRecipe()) == []


def test_rows_of_similar_length_share_a_batch() -> None:
    tokens = [10, 200] * 32
    steps = batches(rows(tokens), LoraRecipe(batch=8))
    assert all(len({tokens[number] for number in step}) == 1 for step in steps)
