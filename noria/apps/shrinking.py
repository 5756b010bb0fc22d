"""What `noria quantize`, `noria prune` and `noria export model` do: make, measure, register."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from noria import adapters, cycle
from noria.apps.shrink_rows import Rows, rows_of
from noria.apps.shrink_source import Source, base_file, check_original, source_of
from noria.apps.shrink_table import Entry, keep, table
from noria.backends import gguf_model, gguf_quantize, peft_fit, shrink, shrink_bits
from noria.backends.scratch import temporary
from noria.backends.shrink_job import BITS, CALIBRATED, BitsJob, MergeJob, PruneJob
from noria.errors import Conflict, Invalid
from noria.evaluation import report
from noria.ports import Platform, Progress
from noria.registry import candidates, packages, versions
from noria.settings import EngineSettings, known
from noria.stage import Look
from noria.types import Artifact, Candidate, Ref

Method = Literal["magnitude", "wanda", "layers"]
Pattern = Literal["", "2:4"]


@dataclass(frozen=True, slots=True)
class Order:
    """What both commands are told. Without a task nothing is registered; `report` measures on its sealed rows."""

    model: str
    out: Path
    rows: str | None = None
    task: str | None = None
    engine: str | None = None
    report: bool = False


@dataclass(frozen=True, slots=True)
class Pruning:
    """How to prune: see `shrink_job.PruneJob`; `kind` is the precision of the GGUF file."""

    method: Method
    sparsity: float
    pattern: Pattern
    drop: int
    kind: str

    @property
    def name(self) -> str:
        """How it is called in the table and in file names."""
        if self.method == "layers":
            return f"layers-{self.drop}"
        return f"{self.method}-{self.pattern.replace(':', 'of') or f'{self.sparsity:g}'}"


def quantize(
    order: Order, kinds: Sequence[str], program: Path | None, requantize: bool, platform: Platform | None,
    progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Write the model at each of the kinds into `order.out`; returns the table, ready for JSON.

    Everything that can be refused is refused before anything is written: an unknown kind, one that this machine
    cannot make, a source that has lost already, a file that stands there. Raises Invalid, NotFound, Conflict,
    Unavailable.
    """
    _check_kinds(order, kinds, program)
    rows, engine = rows_of(order.rows, platform, order.task), _engine(platform, order)
    with temporary("noria-shrink-work.") as work:
        gguf = any(kind not in BITS + CALIBRATED for kind in kinds)
        source = source_of(order.model, platform, order.task, work, progress, gguf=gguf)
        warning = check_original(source, requantize)
        places = {kind: order.out / _named(source.name, kind) for kind in kinds}
        _check_free(places.values())
        fresh = {kind: work / "made" / place.name for kind, place in places.items()}
        (work / "made").mkdir()
        entries = [Entry(source.precision, source.served, {"file": source.model.name})]
        for number, (kind, file) in enumerate(fresh.items()):
            progress.update("quantizing", number, len(places), kind)
            entries.append(_quantized(source, kind, file, program, rows, work, progress))
        progress.update("quantizing", len(places), len(places))
        told = table(entries, rows, engine, progress)
        made = {kind: file for kind, file in fresh.items() if file.is_file()}
        params = {kind: {"by": "quantize", "kind": kind} for kind in made}
        result = _told(order, source, rows, warning, told, _registered(order, platform, source, made, params, told))
        _moved({fresh[kind]: place for kind, place in places.items()})
    _measured(order, platform, result, progress)
    keep(result, order.out)
    return result


def prune(order: Order, how: Pruning, platform: Platform | None, progress: Progress) -> dict[str, Any]:
    """Write the pruned model into `order.out`, as a Hugging Face folder and a GGUF file; returns the table.

    Raises as `quantize` does.
    """
    gguf_quantize.check(how.kind)
    if how.kind not in gguf_quantize.PLAIN:
        raise Invalid(f"a pruned model cannot be written as '{how.kind}'", "--kind f16, then: noria quantize")
    rows, engine = rows_of(order.rows, platform, order.task), _engine(platform, order)
    _check_task(order, platform)
    with temporary("noria-shrink-work.") as work:
        source = source_of(order.model, platform, order.task, work, progress)
        folder, file = order.out / f"{source.name}-{how.name}", order.out / f"{source.name}.{how.name}.gguf"
        _check_free([folder, file])
        job = PruneJob(
            model=source.model.resolve(), method=how.method, sparsity=how.sparsity, pattern=how.pattern, drop=how.drop,
            rows=rows.calibrating, out=work / "pruned", file=work / "pruned.gguf", kind=how.kind,
        )  # fmt: skip
        done = shrink.run(job, progress)
        entries = [
            Entry(source.precision, source.served, {"file": source.model.name}),
            Entry(how.name, job.file, {"file": file.name, "folder": folder.name, **done}),
        ]
        told = table(entries, rows, engine, progress)
        params = {how.name: {"by": "prune", "kind": how.name, **done}}
        found = _registered(order, platform, source, {how.name: job.file}, params, told)
        result = _told(order, source, rows, "", told, found)
        _moved({job.out: folder, job.file: file})
    _measured(order, platform, result, progress)
    keep(result, order.out)
    return result


def export(
    text: str, to: Literal["folder", "gguf"], kind: str, out: Path, task: str | None, platform: Platform,
    progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Write an adapter with its base as one model: a Hugging Face folder, or a GGUF file of this kind.

    Raises Conflict where something stands at `out`, Invalid for what cannot be merged.
    """
    if to == "gguf" and kind not in gguf_quantize.PLAIN:
        raise Invalid(f"an exported model cannot be written as '{kind}'", known(kind, gguf_quantize.PLAIN))
    _check_free([out])
    with temporary("noria-shrink-work.") as work:
        source = source_of(text, platform, task, work, progress)
        fresh = work / "made"
        if to == "gguf":
            gguf_quantize.quantize(source.served, fresh, kind)
        else:
            shrink.run(MergeJob(model=source.served, out=fresh), progress)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(fresh, out)
    size = out.stat().st_size if out.is_file() else sum(each.stat().st_size for each in out.iterdir())
    return {
        "model": text, "parents": [str(each) for each in source.parents], "to": str(out), "kind": kind,
        "size_mb": round(size / 1e6, 1),
    }  # fmt: skip


def _check_kinds(order: Order, kinds: Sequence[str], program: Path | None) -> None:
    every = (*gguf_quantize.PLAIN, *gguf_quantize.K_QUANTS, *BITS, *CALIBRATED)
    for kind in kinds:
        if kind not in every:
            raise Invalid(f"there is no kind '{kind}'", known(kind, every))
        if kind in gguf_quantize.K_QUANTS:
            gguf_quantize.find_program(program)
        shrink_bits.check(kind, cuda=peft_fit.cuda_devices() > 0)
    folders = [kind for kind in kinds if kind in BITS + CALIBRATED]
    if order.task is not None and folders:
        raise Invalid(
            f"'{folders[0]}' is a folder for vLLM and Transformers: no candidate of task '{order.task}' can be one",
            "leave --task away, or take a GGUF kind such as q8_0",
        )


def _named(name: str, kind: str) -> str:
    return f"{name}-{kind}" if kind in BITS + CALIBRATED else f"{name}.{kind}.gguf"


def _check_free(places: Any) -> None:
    for place in places:
        if place.exists():
            raise Conflict(f"'{place}' is there already", "name another folder: --out FOLDER, or remove it")


def _moved(places: Mapping[Path, Path]) -> None:
    """Put what was made where it is wanted, when nothing can fail any more."""
    for fresh, place in places.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(fresh, place)


def _check_task(order: Order, platform: Platform | None) -> None:
    if order.task is not None and platform is not None:
        base_file(platform, order.task)


def _engine(platform: Platform | None, order: Order) -> EngineSettings:
    """Threads and context of the engine that is named, or of the task's; else one slot of 2048 tokens."""
    _check_task(order, platform)
    if platform is None:
        return EngineSettings(kind="llamacpp", model="any", slots=1)
    name = order.engine or (platform.settings.tasks[order.task].engine if order.task else None)
    if name is None:
        return EngineSettings(kind="llamacpp", model="any", slots=1)
    if name not in platform.settings.engines:
        raise Invalid(f"there is no engine '{name}'", known(name, platform.settings.engines))
    return platform.settings.engines[name]


def _quantized(
    source: Source, kind: str, fresh: Path, program: Path | None, rows: Rows, work: Path, progress: Progress
) -> Entry:
    if kind in BITS + CALIBRATED:
        job = BitsJob(model=source.model.resolve(), kind=kind, rows=rows.calibrating, cache=work / "cache", out=fresh)
        done = shrink.run(job, progress)
        return Entry(kind, fresh, {"file": fresh.name, "maps": done["maps"], "fallbacks": []})
    made = gguf_quantize.quantize(source.served, fresh, kind, program)
    return Entry(kind, fresh, {"file": fresh.name, "tensors": made.tensors, "fallbacks": [*made.fallbacks]})


def _registered(
    order: Order, platform: Platform | None, source: Source, made: Mapping[str, Path],
    params: Mapping[str, Mapping[str, Any]], told: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:  # fmt: skip
    """Every GGUF file as a candidate of the task: a whole model in the base's place, which serves nothing yet."""
    if order.task is None or platform is None:
        return []
    task, found = order.task, []
    rows = {each["precision"]: each for each in told}
    for kind, file in made.items():
        with temporary("noria-shrink-candidate.") as folder:
            shutil.copyfile(file, folder / gguf_model.FILE)
            adapters.mark(folder, "model", kind.upper())

            def candidate(ref: Ref, task: str = task) -> Candidate:
                return report.candidate(_look(platform, task), ref)

            noted: dict[str, JsonValue] = {
                "shrunk": {**params[kind], "from": source.name},
                "measured": dict(rows[kind]),
            }
            origin = f"{params[kind]['by']} {kind} of {source.name}"
            each = packages.bring_in(
                platform, task, candidate, folder, origin, None, parents=source.parents, noted=noted
            )
        found.append({"kind": kind, "candidate": each.ref, "adapter": str(each.candidate.adapter)})
    return found


def _look(platform: Platform, task: str) -> Look:
    settings, inputs = platform.settings.tasks[task], dict[str, Artifact]()
    if settings.context is not None:
        inputs["dataset"] = cycle.latest(platform, task, "dataset")
    return Look(platform, task, settings, inputs)


def _measured(order: Order, platform: Platform | None, result: dict[str, Any], progress: Progress) -> None:
    """Reports on the candidates, where they are asked for; the registry follows."""
    if platform is None or order.task is None:
        return
    for each in result["candidates"] if order.report else ():
        made = platform.runs.artifact(Ref.parse(each["adapter"]))
        assert made is not None
        each["report"] = str(cycle.measure(platform, order.task, made, progress).artifact.ref)
    versions.best_effort(platform, order.task, lambda line: progress.update("registry", 0, 1, line))
    for each in result["candidates"]:
        each["version"] = candidates.version(platform, candidates.find(platform, order.task, each["candidate"]))


def _told(
    order: Order, source: Source, rows: Rows, warning: str, told: list[dict[str, Any]], found: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "model": order.model, "source": source.name, "parents": [str(each) for each in source.parents],
        "rows": {"origin": rows.origin, "measured": len(rows.measured), "calibrating": len(rows.calibrating)},
        "warning": warning, "out": str(order.out), "table": told, "candidates": found,
    }  # fmt: skip
