"""What is minimised: the likelihood of answers, or the preference of one answer over another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from noria.backends.peft_job import Row
from noria.backends.peft_packs import Group, Pack, packed
from noria.backends.peft_trunk import Trunk

if TYPE_CHECKING:
    from torch import Tensor


class Loss(Protocol):
    """A sum over parts of a batch, to be divided by the weight of the whole batch."""

    def groups(self, numbers: Sequence[int]) -> list[Group]:
        """The batch in parts that belong together."""

    def weight(self, numbers: Sequence[int]) -> int:
        """What the batch's loss is a mean over."""

    def total(self, pack: Pack) -> Tensor:
        """The sum over the pack, a scalar with a gradient."""


class Answers:
    """Cross-entropy of the learned tokens: nats a token.

    Only their logits are computed. A vocabulary is wide, prompts are long and not learned.
    """

    def __init__(self, causal: Any, trunk: Trunk, rows: Mapping[int, Row]) -> None:
        self._causal, self._trunk, self._rows = causal, trunk, rows

    def groups(self, numbers: Sequence[int]) -> list[Group]:
        """Each row by itself."""
        return [(number,) for number in numbers]

    def weight(self, numbers: Sequence[int]) -> int:
        """The learned tokens of the rows."""
        return sum(len(self._rows[number].learned) for number in numbers)

    def total(self, pack: Pack) -> Tensor:
        """Minus the log-probability of all learned tokens."""
        return self.each(pack).neg().sum()

    def each(self, pack: Pack) -> Tensor:
        """Log-probability of each row's learned tokens together: one number a row."""
        import torch

        before: list[int] = []
        labels: list[int] = []
        owner: list[int] = []
        for place, (number, way) in enumerate(zip(pack.rows, pack.places, strict=True)):
            row = self._rows[number]
            before += [way[at - 1] for at in row.learned]
            labels += [row.tokens[at] for at in row.learned]
            owner += [place] * (len(before) - len(owner))
        hidden = self._trunk.hidden(pack)
        logits = self._causal.lm_head(hidden[before]).float()
        target = torch.tensor(labels, device=logits.device)
        found = torch.nn.functional.cross_entropy(logits, target, reduction="none").neg()
        return found.new_zeros(len(pack.rows)).index_add(0, torch.tensor(owner, device=found.device), found)


class Preferences:
    """Direct preference optimisation (Rafailov et al. 2023, equation 7): nats a pair.

    Row 2n is preferred over row 2n+1 of the same prompt. The reference is the model as it was when this was made.
    """

    def __init__(self, answers: Answers, rows: Mapping[int, Row], beta: float, limit: int) -> None:
        import torch

        self._answers, self._beta = answers, beta
        self._reference: dict[int, float] = {}
        with torch.no_grad():
            for pack in packed(rows, self.groups(sorted(rows)), limit):
                self._reference |= zip(pack.rows, answers.each(pack).tolist(), strict=True)

    def groups(self, numbers: Sequence[int]) -> list[Group]:
        """Pairs."""
        return [(number, number + 1) for number in numbers if number % 2 == 0]

    def weight(self, numbers: Sequence[int]) -> int:
        """The number of pairs."""
        return len(self.groups(numbers))

    def total(self, pack: Pack) -> Tensor:
        """Minus the log-probability that the preferred answers win."""
        import torch

        moved = self._answers.each(pack)
        moved = moved - torch.tensor([self._reference[number] for number in pack.rows], device=moved.device)
        return torch.nn.functional.softplus(-self._beta * (moved[0::2] - moved[1::2])).sum()
