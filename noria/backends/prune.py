"""Weights and layers taken out of a model of Llama's build: by magnitude, by Wanda, by what a layer changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import JsonValue

from noria.backends.shrink_job import PruneJob
from noria.errors import Invalid

GROUP, KEPT = 4, 2
"""Of so many neighbours in a row so many stay, with the pattern 2:4."""


class _Seen(Exception):
    """Ends a pass through the model once the first layer's input is known."""


def carry_out(
    causal: Any, job: PruneJob, rows: Sequence[Sequence[int]], heard: Callable[[int, int], None]
) -> dict[str, JsonValue]:
    """Prune the model in place; returns what was done, with the sparsity of the layers' matrices counted afterwards.

    `rows` are token ids to calibrate with. Embeddings, norms and the output stay. Raises Invalid where nothing can be
    pruned so.
    """
    if job.method == "layers":
        return _drop(causal, job.drop, rows)
    if not job.pattern and not 0 < job.sparsity < 1:
        raise Invalid(f"sparsity {job.sparsity} is not between 0 and 1", "such as --sparsity 0.5")
    if job.method == "wanda" and not rows:
        raise Invalid("wanda needs rows to calibrate with", "--rows FILE.jsonl")
    if job.method == "wanda":
        _wanda(causal, job, rows, heard)
    else:
        layers = causal.model.layers
        for number, layer in enumerate(layers, 1):
            for _, linear in maps(layer):
                _cut(linear.weight, linear.weight.detach().abs(), job, by_row=False)
            heard(number, len(layers))
    return {"sparsity": sparsity(causal), "matrices": sum(1 for layer in causal.model.layers for _ in maps(layer))}


def maps(layer: Any) -> Iterator[tuple[str, Any]]:
    """A layer's linear maps by name."""
    import torch

    for name, module in layer.named_modules():
        if isinstance(module, torch.nn.Linear):
            yield name, module


def sparsity(causal: Any) -> float:
    """Share of zeros in the matrices of the layers."""
    zeros = total = 0
    for layer in causal.model.layers:
        for _, linear in maps(layer):
            zeros += int((linear.weight == 0).sum())
            total += linear.weight.numel()
    return round(zeros / max(1, total), 6)


def _cut(weight: Any, worth: Any, job: PruneJob, *, by_row: bool) -> None:
    """Set to zero the weights of least worth: in each group of four, in each row, or in the whole matrix."""
    import torch

    with torch.no_grad():
        if job.pattern:
            if weight.shape[1] % GROUP:
                raise Invalid(f"rows of {weight.shape[1]} weights have no groups of four", "--sparsity 0.5 instead")
            groups = worth.reshape(weight.shape[0], -1, GROUP)
            least = groups.argsort(dim=-1, stable=True)[..., : GROUP - KEPT]
            mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, least, True).reshape(weight.shape)
        elif by_row:
            least = worth.argsort(dim=1, stable=True)[:, : int(weight.shape[1] * job.sparsity)]
            mask = torch.zeros_like(worth, dtype=torch.bool).scatter_(1, least, True)
        else:
            least = worth.flatten().argsort(stable=True)[: int(weight.numel() * job.sparsity)]
            mask = torch.zeros(weight.numel(), dtype=torch.bool)
            mask[least] = True
            mask = mask.reshape(weight.shape)
        weight[mask] = 0


def _wanda(causal: Any, job: PruneJob, rows: Sequence[Sequence[int]], heard: Callable[[int, int], None]) -> None:
    """Wanda (Sun et al. 2023, arXiv 2306.11695): a weight's worth is |W| times the norm of the input it meets.

    Weights compete within a row, that is for one output. Layers are pruned from the first to the last, each on the
    inputs that the pruned layers before it give.
    """
    import torch

    layers = causal.model.layers
    with torch.inference_mode():
        states = [_entering(causal, row) for row in rows]
    for number, layer in enumerate(layers, 1):
        sums = {name: torch.zeros(linear.in_features) for name, linear in maps(layer)}
        hooks = [linear.register_forward_pre_hook(_adding(sums[name])) for name, linear in maps(layer)]
        with torch.inference_mode():
            for hidden, more in states:
                layer(hidden, **more)
        for hook in hooks:
            hook.remove()
        for name, linear in maps(layer):
            _cut(linear.weight, linear.weight.detach().abs() * sums[name].sqrt(), job, by_row=True)
        with torch.inference_mode():
            states = [(_first(layer(hidden, **more)), more) for hidden, more in states]
        heard(number, len(layers))


def _adding(total: Any) -> Callable[[Any, tuple[Any, ...]], None]:
    def hook(module: Any, given: tuple[Any, ...]) -> None:
        total.add_(given[0].float().reshape(-1, given[0].shape[-1]).pow(2).sum(0))

    return hook


def _entering(causal: Any, row: Sequence[int]) -> tuple[Any, dict[str, Any]]:
    """What the first layer is called with for a row: the hidden states, and all that is named."""
    import torch

    caught: list[tuple[Any, dict[str, Any]]] = []

    def catch(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        caught.append((given[0], named))
        raise _Seen

    hook = causal.model.layers[0].register_forward_pre_hook(catch, with_kwargs=True)
    try:
        causal.model(torch.tensor([list(row)]), use_cache=False)
    except _Seen:
        pass
    finally:
        hook.remove()
    return caught[0]


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _drop(causal: Any, count: int, rows: Sequence[Sequence[int]]) -> dict[str, JsonValue]:
    """Take out the layers that change the hidden state least: the highest cosine between what goes in and comes out.

    That is the "block influence" of Men et al. 2024 (arXiv 2403.03853). The first and the last layer stay.
    """
    import torch

    layers = causal.model.layers
    if not 0 < count <= len(layers) - 2:
        raise Invalid(f"{count} of {len(layers)} layers cannot be dropped", f"--drop 1 to {len(layers) - 2}")
    if not rows:
        raise Invalid("layers are chosen on rows, and there are none", "--rows FILE.jsonl")
    cosines, tokens = torch.zeros(len(layers)), 0
    with torch.inference_mode():
        for row in rows:
            hidden, more = _entering(causal, row)
            for number, layer in enumerate(layers):
                after = _first(layer(hidden, **more))
                cosines[number] += torch.nn.functional.cosine_similarity(hidden, after, dim=-1).sum()
                hidden = after
            tokens += len(row)
    cosines /= tokens
    inner = sorted(range(1, len(layers) - 1), key=lambda number: -float(cosines[number]))
    dropped = sorted(inner[:count])
    causal.model.layers = torch.nn.ModuleList(each for number, each in enumerate(layers) if number not in dropped)
    for number, layer in enumerate(causal.model.layers):
        layer.self_attn.layer_idx = number
    causal.config.num_hidden_layers = len(causal.model.layers)
    return {
        "dropped": list(dropped), "layers": len(causal.model.layers),
        "cosines": [round(float(each), 4) for each in cosines],
    }  # fmt: skip
