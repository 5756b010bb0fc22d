"""Rows in packs: many rows as one sequence without padding, in which equal beginnings are computed once.

Rows of a task begin alike, with its system prompt and often the same context. In a pack they are the branches of one
tree: a token sees those on its own way to the root and nothing else, and its position is its depth. That gives each
row exactly what it would get alone (block-diagonal attention, positions from 0); gradients add up at what is shared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from noria.backends.peft_job import Row

if TYPE_CHECKING:
    from torch import Tensor, device

Group = tuple[int, ...]
"""Numbers of rows that must stand in one pack."""


@dataclass(frozen=True, slots=True)
class Pack:
    """Token ids in the order of computing, the position of each, and for each row the places of its tokens here."""

    rows: tuple[int, ...]
    tokens: tuple[int, ...]
    positions: tuple[int, ...]
    places: tuple[tuple[int, ...], ...]

    def mask(self, where: device) -> Tensor:
        """What sees what: 1 x 1 x tokens x tokens, true where a query (row) may look at a key (column)."""
        import torch

        seen = torch.zeros(len(self.tokens), len(self.tokens), dtype=torch.bool)
        for way in self.places:
            at = torch.tensor(way)
            seen[at[:, None], at] |= torch.ones(len(way), len(way), dtype=torch.bool).tril()
        return seen[None, None].to(where)


def packed(rows: Mapping[int, Row], groups: Sequence[Group], limit: int) -> list[Pack]:
    """All groups in packs of at most `limit` tokens; a larger group is a pack alone.

    Groups are taken in the order of their tokens, so that equal beginnings meet.
    """
    packs: list[Pack] = []
    open_tree = _Tree(rows)
    for group in sorted(groups, key=lambda group: [rows[number].tokens for number in group]):
        if open_tree.rows and len(open_tree.tokens) + open_tree.missing(group) > limit:
            packs.append(open_tree.pack())
            open_tree = _Tree(rows)
        open_tree.add(group)
    return [*packs, open_tree.pack()] if open_tree.rows else packs


class _Tree:
    def __init__(self, known: Mapping[int, Row]) -> None:
        self._known = known
        self._children: dict[tuple[int, int], int] = {}
        self.rows: list[int] = []
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self._places: list[tuple[int, ...]] = []

    def missing(self, group: Group) -> int:
        """Tokens that the group would add, at the most."""
        added = 0
        for number in group:
            node, row = -1, self._known[number].tokens
            for depth, token in enumerate(row):
                found = self._children.get((node, token))
                if found is None:
                    added += len(row) - depth
                    break
                node = found
        return added

    def add(self, group: Group) -> None:
        for number in group:
            node, way = -1, []
            for depth, token in enumerate(self._known[number].tokens):
                key = (node, token)
                if key not in self._children:
                    self._children[key] = len(self.tokens)
                    self.tokens.append(token)
                    self.positions.append(depth)
                node = self._children[key]
                way.append(node)
            self.rows.append(number)
            self._places.append(tuple(way))

    def pack(self) -> Pack:
        return Pack(tuple(self.rows), tuple(self.tokens), tuple(self.positions), tuple(self._places))
