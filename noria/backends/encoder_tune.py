"""Upper layers of an encoder tuned together with a head, with torch; the only part of the recipe that needs it."""

from __future__ import annotations

import copy
import math
import os
import random
from collections.abc import Sequence
from typing import Any

from noria.backends import encoder_fit
from noria.backends.encoder_fit import Checked, Fitted, Rows
from noria.backends.encoder_job import Made, Texts, WorkerJob
from noria.backends.encoder_model import Encoder
from noria.backends.worker import Say
from noria.errors import Invalid

HEAD_FASTER = 10.0
"""How much faster a head learns than the layers below it, which know something already."""
WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""


def tune(job: WorkerJob, texts: Texts, rows: Rows, say: Say) -> Made:
    """Tune the upper `recipe.layers` layers from a fitted head on; stop when held-out groups get no better.

    Where no pass is better than the fitted head alone, that head is the result. The same job gives the same bytes on
    the same machine. Raises Invalid for more layers than there are, and where there are too few groups to hold out.
    """
    import torch

    inside, outside = held_out(rows.groups, job.recipe.validation)
    if not outside:
        raise Invalid("all rows are of one conversation: none can be held out", "layers = 0, or more conversations")
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(job.recipe.seed)
    learner = _Learner(job, texts, rows, rows.take(inside))
    best, stale, losses = learner.state(outside), 0, list[float]()
    frozen, passes = best[0], 0
    order = random.Random(job.recipe.seed)
    for number in range(1, job.recipe.epochs + 1):
        losses += learner.once(_batches(inside, job.recipe.batch, texts, order), number - 1)
        now = learner.state(outside)
        if not math.isfinite(now[0]):
            raise Invalid("the loss is no number any more", "take a smaller learning_rate")
        say({"step": number, "total": job.recipe.epochs, "note": f"validation loss {now[0]:.3f}"})
        stale = 0 if now[0] < best[0] else stale + 1
        if stale == 0:
            best, passes = now, number
        elif stale >= job.recipe.patience:
            break
    loss, weight, bias, tuned, logits = best
    kept = rows.take(outside)
    warm = encoder_fit.temperature(kept, logits)
    checked = Checked(learner.l2, warm, kept.loss(logits / warm), kept.right(logits))
    note = {"epochs": passes, "frozen_validation_loss": round(frozen, 4), "tuned_validation_loss": round(loss, 4)}
    return Made(Fitted(weight, bias, tuple(losses)), checked, tuned if passes else {}, {**note})


def held_out(groups: Sequence[str], share: float) -> tuple[list[int], list[int]]:
    """Places of the rows that are learned and of those that are held out, groups being whole."""
    folds = encoder_fit.folds_of(groups, max(2, round(1 / share)))
    if not folds:
        return list(range(len(groups))), []
    outside = {int(place) for place in folds[0]}
    return [place for place in range(len(groups)) if place not in outside], sorted(outside)


def _batches(inside: Sequence[int], size: int, texts: Texts, order: random.Random) -> list[list[int]]:
    """The rows once, in random batches of rows that are about as long."""
    lots = {place: order.random() for place in inside}
    window = size * 8
    mixed = sorted(inside, key=lambda place: lots[place])
    parts = []
    for start in range(0, len(mixed), window):
        near = sorted(mixed[start : start + window], key=lambda place: len(texts.ids[place]))
        parts += [near[at : at + size] for at in range(0, len(near), size)]
    order.shuffle(parts)
    return parts


class _Learner:
    """The encoder in torch with a head that was fitted on the rows that are learned."""

    def __init__(self, job: WorkerJob, texts: Texts, rows: Rows, inside: Rows) -> None:
        import torch
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        plain = Encoder.load(job.model, job.recipe.max_length)
        self._first, self._unit, self._pad = plain.first, plain.unit, plain.bert.shape.first - 1
        self._texts, self._rows, self._recipe = texts, rows, job.recipe
        layers = plain.bert.shape.layers
        if job.recipe.layers > layers:
            raise Invalid(f"layers is {job.recipe.layers}, and the encoder has {layers}", f"layers = {layers} at most")
        self._model = transformers.AutoModel.from_pretrained(
            job.model, dtype=torch.float32, attn_implementation="eager", add_pooling_layer=False
        )
        self._model.requires_grad_(False)
        self._names = [
            name
            for name, _ in self._model.named_parameters()
            if name.startswith("encoder.layer.") and int(name.split(".")[2]) >= layers - job.recipe.layers
        ]
        tuned = [each.requires_grad_() for name, each in self._model.named_parameters() if name in set(self._names)]
        self.l2 = encoder_fit.check(inside, job.recipe.l2).l2
        fitted = encoder_fit.fit(inside, self.l2)
        self._head = torch.nn.Linear(fitted.weight.shape[1], len(fitted.bias))
        with torch.no_grad():
            self._head.weight.copy_(torch.tensor(fitted.weight))
            self._head.bias.copy_(torch.tensor(fitted.bias))
        rate = job.recipe.learning_rate
        self._steps = job.recipe.epochs * math.ceil(len(inside.groups) / job.recipe.batch)
        self._done = 0
        self._optimiser = torch.optim.AdamW(
            [{"params": tuned, "lr": rate}, {"params": self._head.parameters(), "lr": HEAD_FASTER * rate}],
            weight_decay=0.01,
        )
        rise = max(1, round(WARM_UP * self._steps))
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimiser, lambda step: min((step + 1) / rise, max(0.0, (self._steps - step) / self._steps))
        )

    def once(self, batches: Sequence[Sequence[int]], number: int) -> list[float]:
        """One pass over these batches; the loss of each."""
        import torch

        # Dropout draws by pass, whatever was measured in between.
        torch.manual_seed(self._recipe.seed + number)
        self._model.train()
        losses = []
        for places in batches:
            loss = self._loss(self._logits(places), places)
            self._optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([*self._head.parameters(), *self._model.parameters()], 1.0)
            self._optimiser.step()
            self._schedule.step()
            losses.append(float(loss.item()))
        return losses

    def state(self, places: Sequence[int]) -> tuple[float, Any, Any, dict[str, Any], Any]:
        """Loss on these rows; copies of the head's weight and bias and of the tuned tensors; logits."""
        import torch

        self._model.eval()
        with torch.inference_mode():
            parts = [self._logits(places[at : at + 64]) for at in range(0, len(places), 64)]
            logits = torch.cat(parts).double().numpy()
        weight, bias = (each.detach().double().numpy().copy() for each in (self._head.weight, self._head.bias))
        own = dict(self._model.named_parameters())
        tuned = {name: copy.deepcopy(own[name].detach().numpy()) for name in self._names}
        return self._rows.take(list(places)).loss(logits), weight, bias, tuned, logits

    def _logits(self, places: Sequence[int]) -> Any:
        import torch

        longest = max(len(self._texts.ids[place]) for place in places)
        ids = torch.full((len(places), longest), max(0, self._pad))
        mask = torch.zeros((len(places), longest), dtype=torch.long)
        for row, place in enumerate(places):
            tokens = torch.tensor(self._texts.ids[place])
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        state = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = (state * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        found = state[:, 0] if self._first else mean
        return self._head(torch.nn.functional.normalize(found, dim=-1) if self._unit else found)

    def _loss(self, logits: Any, places: Sequence[int]) -> Any:
        import torch

        rows = self._rows.take(list(places))
        wanted, weights = (torch.tensor(each, dtype=torch.float32) for each in (rows.wanted, rows.weights))
        if rows.several:
            costs = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
            return (costs * weights).sum() / weights.sum() * logits.shape[1]
        costs = -(torch.log_softmax(logits, dim=-1) * wanted).sum(dim=-1)
        own = (weights * wanted).sum(dim=-1)
        return (costs * own).sum() / own.sum()
