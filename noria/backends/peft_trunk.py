"""The frozen layers below an adapter. What they make of a row never changes, so it is computed once a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from noria.backends.peft_job import Row
from noria.backends.peft_packs import Pack, packed

if TYPE_CHECKING:
    from torch import Tensor

COMPUTED_AT_ONCE = 400
"""Tokens that go through the trunk together; more gain nothing on a processor."""


class Trunk:
    """Splits a Hugging Face causal model of the Llama kind at layer `first`, where its adapter begins.

    A row that is seen n times then costs the lower layers one forward pass instead of n, and the upper ones alone
    take part in training. The states that are kept take `4 * width` bytes a token. Which rows are computed together
    is fixed from the beginning: a training that goes on after a kill computes the same states, to the last bit.

    Args:
        causal: the model, adapter included.
        first: number of the lowest layer with an adapter, from 0; 0 leaves nothing to keep.
        rows: all rows that may be asked for, by number.
    """

    def __init__(self, causal: Any, first: int, rows: Mapping[int, Row]) -> None:
        self._core = causal.model
        self._first = first
        self._states: dict[int, Tensor] = {}
        self._together: dict[int, Pack] = {}
        if first:
            for pack in packed(rows, [(number,) for number in sorted(rows)], COMPUTED_AT_ONCE):
                self._together |= dict.fromkeys(pack.rows, pack)

    def hidden(self, pack: Pack) -> Tensor:
        """Last hidden states of the pack's tokens: tokens x width."""
        import torch

        if self._first == 0:
            return self._run(pack, input_ids=self._ids(pack))
        for number in pack.rows:
            if number not in self._states:
                self._compute(self._together[number])
        first = self._states[pack.rows[0]]
        states = torch.empty(len(pack.tokens), first.shape[-1], dtype=first.dtype, device=first.device)
        # Where rows share a beginning, the first row's states stand for all.
        for number, places in zip(reversed(pack.rows), reversed(pack.places), strict=True):
            states[list(places)] = self._states[number]
        with self._only(slice(self._first, None)):
            return self._run(pack, inputs_embeds=states[None])

    def _compute(self, pack: Pack) -> None:
        import torch

        norm, self._core.norm = self._core.norm, torch.nn.Identity()
        try:
            with torch.no_grad(), self._only(slice(0, self._first)):
                states = self._run(pack, input_ids=self._ids(pack))
        finally:
            self._core.norm = norm
        for number, places in zip(pack.rows, pack.places, strict=True):
            self._states[number] = states[list(places)]

    def _run(self, pack: Pack, **inputs: Tensor) -> Tensor:
        import torch

        where = next(iter(inputs.values())).device
        positions = torch.tensor([pack.positions], device=where)
        out = self._core(**inputs, position_ids=positions, attention_mask=pack.mask(where), use_cache=False)
        hidden: Tensor = out.last_hidden_state[0]
        return hidden

    def _ids(self, pack: Pack) -> Tensor:
        import torch

        return torch.tensor([pack.tokens], device=self._core.embed_tokens.weight.device)

    @contextmanager
    def _only(self, part: slice) -> Iterator[None]:
        layers = self._core.layers
        self._core.layers = layers[part]
        try:
            yield
        finally:
            self._core.layers = layers
