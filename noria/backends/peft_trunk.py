"""The frozen layers below an adapter. What they make of a row never changes, so it is computed once a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

COMPUTED_AT_ONCE = 4
"""Rows that go through the trunk together; more gain nothing on a processor."""


class Trunk:
    """Splits a Hugging Face causal model of the Llama kind at layer `first`, where its adapter begins.

    A row that is seen n times then costs the lower layers one forward pass instead of n, and the upper ones alone
    take part in training. The states that are kept take `4 * width` bytes a token.

    Args:
        causal: the model, adapter included.
        first: number of the lowest layer with an adapter, from 0; 0 leaves nothing to keep.
        tokens: token ids of each row, by row number.
    """

    def __init__(self, causal: Any, first: int, tokens: Mapping[int, Sequence[int]]) -> None:
        self._core = causal.model
        self._first = first
        self._tokens = tokens
        self._states: dict[int, Tensor] = {}

    def hidden(self, numbers: Sequence[int]) -> Tensor:
        """Last hidden states of these rows, padded on the right: rows x longest row x width."""
        import torch

        if self._first == 0:
            return self._core(input_ids=self._padded(numbers), use_cache=False).last_hidden_state
        missing = [number for number in numbers if number not in self._states]
        for at in range(0, len(missing), COMPUTED_AT_ONCE):
            self._compute(missing[at : at + COMPUTED_AT_ONCE])
        # Padding stands on the right, where a causal model never looks.
        states = torch.nn.utils.rnn.pad_sequence([self._states[number] for number in numbers], batch_first=True)
        with self._only(slice(self._first, None)):
            return self._core(inputs_embeds=states, use_cache=False).last_hidden_state

    def _compute(self, numbers: Sequence[int]) -> None:
        import torch

        norm, self._core.norm = self._core.norm, torch.nn.Identity()
        try:
            with torch.no_grad(), self._only(slice(0, self._first)):
                states = self._core(input_ids=self._padded(numbers), use_cache=False).last_hidden_state
        finally:
            self._core.norm = norm
        for number, state in zip(numbers, states, strict=True):
            self._states[number] = state[: len(self._tokens[number])].clone()

    def _padded(self, numbers: Sequence[int]) -> Tensor:
        import torch

        longest = max(len(self._tokens[number]) for number in numbers)
        return torch.tensor([[*(row := self._tokens[number]), *[0] * (longest - len(row))] for number in numbers])

    @contextmanager
    def _only(self, part: slice) -> Iterator[None]:
        layers = self._core.layers
        self._core.layers = layers[part]
        try:
            yield
        finally:
            self._core.layers = layers
