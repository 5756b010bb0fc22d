"""The model that is to become smaller: a known name, a file, a folder, or an adapter merged into its base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from noria import adapters
from noria.backends import gguf_model, gguf_quantize, shrink
from noria.backends.llamacpp import ADAPTER_FILE, PACKAGED, check_model, model_path
from noria.backends.shrink_job import MergeJob
from noria.errors import Invalid, NotFound
from noria.ports import Platform, Progress
from noria.registry import candidates
from noria.settings import EngineSettings
from noria.types import Ref


@dataclass(frozen=True, slots=True)
class Source:
    """`model` is a GGUF file or a Hugging Face folder, `served` a GGUF file of it; `parents` stand in its lineage.

    Where no GGUF file is wanted of a folder, it is `served` as it is.
    """

    name: str
    model: Path
    served: Path
    precision: str
    parents: tuple[Ref, ...] = ()


def source_of(
    text: str, platform: Platform | None, task: str | None, work: Path, progress: Progress, *, gguf: bool = True
) -> Source:
    """Find the model, and write what is not there as a GGUF file into the folder `work`.

    `gguf` says whether a folder has to become one. Raises NotFound, Invalid; Unavailable where a package is missing.
    """
    if platform is not None and (
        text.startswith("adapter:") or (task and text in ("champion", "challenger", "latest"))
    ):
        return _of_adapter(platform, _adapter(platform, text, task), work, progress)
    if text.startswith("adapter:"):
        raise Invalid(f"'{text}' is an adapter of a project, and there is none here", "run it in the project's folder")
    folder = Path(text)
    if folder.is_dir():
        name = folder.resolve().name
        if not gguf:
            return Source(name, folder, folder, "folder")
        served = work / f"{name}.f32.gguf"
        shrink.run(MergeJob(model=folder, file=served), progress)
        return Source(name, folder, served, "f32")
    file = model_path(EngineSettings(kind="llamacpp", model=text))
    name = text if text in PACKAGED else file.stem
    parents = _base(platform, task) if platform is not None and task is not None else ()
    return Source(name, file, file, check_model(file).lower(), parents)


def check_original(source: Source, requantize: bool) -> str:
    """A warning for a source whose weights have lost already; raises Invalid unless `requantize` allows it."""
    found = gguf_quantize.lossy(source.served) if source.served.is_file() else None
    if found is None:
        return ""
    fact = f"most weights of '{source.name}' are {found} already: what comes of it shows nothing about loss"
    if not requantize:
        raise Invalid(fact, "start from original weights (f32, f16, bf16 or q8_0), or: --requantize")
    return fact


def base_file(platform: Platform, task: str) -> Path:
    """The GGUF file that a task's engine serves as its base; raises Invalid for an engine that serves none."""
    engine = platform.settings.engines[platform.settings.tasks[task].engine]
    if engine.model is None or not platform.engines[engine.kind].caps.models:
        raise Invalid(
            f"engine '{platform.settings.tasks[task].engine}' serves no whole models, and task '{task}' uses it",
            'use an engine of kind "llamacpp"',
            where=platform.settings.place("tasks", task, "engine"),
        )
    return platform.model(engine.model)


def _base(platform: Platform, task: str) -> tuple[Ref, ...]:
    engine = platform.settings.engines[platform.settings.tasks[task].engine]
    return (platform.engines[engine.kind].base(engine)[0],)


def _adapter(platform: Platform, text: str, task: str | None) -> Ref:
    if text.startswith("adapter:"):
        try:
            return Ref.parse(text)
        except ValueError as error:
            raise Invalid(str(error), "such as adapter:helpdesk@0123456789abcdef") from error
    assert task is not None
    found = candidates.find(platform, task, text).candidate.adapter
    if found is None:
        raise Invalid(f"'{text}' of '{task}' has no adapter: it is the base with a prompt", "name the base model")
    return found


def _of_adapter(platform: Platform, ref: Ref, work: Path, progress: Progress) -> Source:
    """A LoRA merged into its base in float32, or the whole model that an adapter is."""
    if ref.name not in platform.settings.tasks:
        raise NotFound(f"'{ref}' is of no task of this project", "such as adapter:TASK@DIGEST, of `noria status`")
    folder = platform.lake.verified(ref)
    kind = adapters.kind_of(folder)
    parents = (ref, *_base(platform, ref.name))
    if kind == "model":
        file = folder / gguf_model.FILE
        return Source(f"{ref.name}-{ref.digest[:8]}", file, file, check_model(file).lower(), parents)
    if kind != "lora" or not (folder / "adapter_config.json").is_file() or not (folder / ADAPTER_FILE).is_file():
        raise Invalid(f"'{ref}' is no LoRA that could be merged, but of kind '{kind}'", "name a LoRA or a whole model")
    file = work / f"{ref.name}-{ref.digest[:8]}.f32.gguf"
    shrink.run(MergeJob(model=base_file(platform, ref.name), adapter=folder, file=file), progress)
    return Source(f"{ref.name}-{ref.digest[:8]}", file, file, "f32", parents)
