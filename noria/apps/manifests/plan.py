"""What deployment files are made from: the project, the wanted profiles, images and limits."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from pydantic import JsonValue

from noria import __version__
from noria.backends import served_kinds, served_models
from noria.errors import Invalid
from noria.settings import EngineSettings, Settings, known

PROFILES: Final = ("cpu", "gpu", "mlflow")
POSTGRES_IMAGE: Final = "postgres:15.14-bookworm"
VLLM_IMAGE: Final = "vllm/vllm-openai:v0.32.0"
DATA_PORT: Final = 8000
CONTROL_PORT: Final = 8001
MLFLOW_PORT: Final = 5000
POSTGRES_PORT: Final = 5432
ENGINE_PORT: Final = 8000
HOME: Final = "/project"
"""Where a container has the project."""
USER: Final = 10001
"""The user and group of noria's images, see deploy/docker; nobody on the host."""
POSTGRES_USER: Final = 999
"""The user `postgres` of PostgreSQL's Debian image."""

_TAGGED: Final = re.compile(
    r"[a-z0-9][a-z0-9._/:-]*(?:@sha256:[0-9a-f]{64}|(?<!:)(?::(?!latest$)[A-Za-z0-9_][\w.-]{0,127}))"
)
_CPUS: Final = re.compile(r"(?![0.]+m?$)(?:\d+(?:\.\d+)?|\d+m)")
_MEMORY: Final = re.compile(r"[1-9]\d*(?:Ki|Mi|Gi|Ti)")


@dataclass(frozen=True, slots=True)
class Images:
    """Every image by a tag or a digest; none by `latest`."""

    serve: str = f"noria-gateway:{__version__}"
    worker: str = f"noria-worker:{__version__}"
    vllm: str = VLLM_IMAGE
    postgres: str = POSTGRES_IMAGE

    def __post_init__(self) -> None:
        for image in (self.serve, self.worker, self.vllm, self.postgres):
            if not _TAGGED.fullmatch(image):
                raise Invalid(f"'{image}' does not pin an image", "give a tag or a digest, such as noria-gateway:0.1.0")


@dataclass(frozen=True, slots=True)
class Limits:
    """Most that one container may take: CPUs, memory in Kubernetes' words (such as 4Gi), GPUs of an engine."""

    cpus: str = "2"
    memory: str = "4Gi"
    gpus: int = 1
    shared_memory: str = "8Gi"
    """For a GPU engine's /dev/shm, through which its processes talk."""
    engine_memory: str = "32Gi"
    storage: str = "20Gi"
    """Of the volume with lake and interactions; PostgreSQL and the models have one of that size each."""

    def __post_init__(self) -> None:
        if not _CPUS.fullmatch(self.cpus):
            raise Invalid(f"'{self.cpus}' is no quantity of CPUs", "such as 2, 0.5 or 500m")
        for text in (self.memory, self.shared_memory, self.engine_memory, self.storage):
            if not _MEMORY.fullmatch(text):
                raise Invalid(f"'{text}' is no quantity of memory", "such as 512Mi or 4Gi")


@dataclass(frozen=True, slots=True)
class Scale:
    """Kubernetes: how many serve, how many of them are canaries, and which volume they share."""

    replicas: int = 2
    canary: int = 0
    canary_image: str | None = None
    hpa_max: int | None = None
    """With a HorizontalPodAutoscaler up to so many; None without one."""
    access: Literal["ReadWriteMany", "ReadWriteOnce"] = "ReadWriteMany"
    storage_class: str | None = None

    def __post_init__(self) -> None:
        if self.canary_image is not None and not _TAGGED.fullmatch(self.canary_image):
            raise Invalid(f"'{self.canary_image}' does not pin an image", "give a tag, such as noria-gateway:0.2.0")
        if self.canary_image is not None and not self.canary:
            raise Invalid("--canary-image without canaries", "add --canary 1")
        if self.hpa_max is not None and self.hpa_max < self.replicas:
            raise Invalid(f"--hpa-max {self.hpa_max} is below --replicas {self.replicas}", "raise it")


@dataclass(frozen=True, slots=True)
class Plan:
    """All that the writers of compose and Kubernetes files need."""

    settings: Settings
    profiles: tuple[str, ...]
    images: Images = Images()
    limits: Limits = Limits()
    scale: Scale = Scale()
    command: str = "noria export"
    """What was typed, for the header of each file."""
    hub_models: Mapping[str, str] = field(default_factory=dict)
    """Engines that the GPU profile serves from another model than noria.toml says: name to Hugging Face id."""

    @property
    def gpu_engines(self) -> dict[str, EngineSettings]:
        """What runs in vLLM's container: engines of kind vllm with a model, and those given one for the GPU."""
        found = {}
        for name, engine in self.settings.engines.items():
            if name in self.hub_models and engine.kind == "vllm":
                found[name] = engine.model_copy(update={"model": self.hub_models[name], "url": None, "urls": ()})
            elif name in self.hub_models:
                found[name] = EngineSettings(
                    kind="vllm", model=self.hub_models[name], slots=engine.slots, context=engine.context,
                    price=engine.price, health=engine.health,
                )  # fmt: skip
            elif engine.kind == "vllm" and engine.model is not None:
                found[name] = engine
        return found

    def gpus(self, engine: EngineSettings) -> int:
        """How many GPUs an engine's container has, over which its model is split."""
        return max(engine.gpus, self.limits.gpus)

    @property
    def key_names(self) -> tuple[str, ...]:
        """Variables that hold the keys of attached engines: secrets, of which files have the names only."""
        return tuple(sorted({engine.key for engine in self.settings.engines.values() if engine.key}))

    @property
    def mlflow(self) -> bool:
        """Whether an MLflow server is part of it."""
        return "mlflow" in self.profiles


def planned(plan: Plan) -> Plan:
    """The plan as it is; raises Invalid for profiles that do not exist or cannot be served."""
    for profile in plan.profiles:
        if profile not in PROFILES:
            raise Invalid(f"there is no profile '{profile}'", known(profile, PROFILES))
    if not {"cpu", "gpu"} & set(plan.profiles):
        raise Invalid("nothing would serve", "add --profile cpu or --profile gpu")
    for name in plan.hub_models:
        if name not in plan.settings.engines:
            raise Invalid(f"there is no engine '{name}'", known(name, plan.settings.engines))
    if "gpu" in plan.profiles and not plan.gpu_engines:
        first = next(iter(plan.settings.engines))
        raise Invalid(
            "no engine of noria.toml can run in vLLM's container",
            f"name a model for one: --gpu-model {first}=Qwen/Qwen3-1.7B",
        )
    outside = [name for name, engine in plan.settings.engines.items() if engine.kind == "vllm" and engine.model]
    if "cpu" in plan.profiles and outside:
        raise Invalid(
            f"engine '{outside[0]}' needs vLLM's container, which profile cpu has not",
            "take --profile gpu alone, or attach a running one: url = …",
            where=plan.settings.place("engines", outside[0]),
        )
    return plan


def model_folder(plan: Plan, name: str, engine: EngineSettings) -> Path | None:
    """The folder of the model that an engine's container is given read-only; None for an id on the hub.

    Raises Invalid for a GGUF file, and for a folder that is not there.
    """
    model = str(engine.model)
    place = plan.settings.place("engines", name, "model")
    if served_models.is_gguf(model):
        raise Invalid(
            f"engine '{name}' names a GGUF file, which vLLM's container is not given",
            f"name a folder or an id on the hub: --gpu-model {name}=Qwen/Qwen3-1.7B", where=place,
        )  # fmt: skip
    folder = Path(os.path.normpath(plan.settings.root / Path(model).expanduser()))
    if folder.is_dir():
        return folder
    if model[0] in "./~":
        raise Invalid(f"there is no model folder '{model}'", "name one that is there, or an id on the hub", where=place)
    return None


def vllm_arguments(plan: Plan, name: str, engine: EngineSettings) -> list[str]:
    """Arguments of vLLM's container for one engine: those with which noria itself launches it.

    `slots` and `context` of noria.toml are vLLM's most sequences at once and most tokens of each.
    """
    # The container has its GPUs, whatever noria.toml says of this machine.
    settings = engine.model_copy(update={"gpus": plan.gpus(engine), "device": "auto"})
    folder = model_folder(plan, name, engine)
    model = str(engine.model) if folder is None else served_kinds.mounted(folder)[1]
    launch = served_kinds.Plan(
        settings, model, engine.serves or name, served_kinds.EVERYWHERE, ENGINE_PORT, adapters={}
    )  # fmt: skip
    make = served_kinds.MAKES["vllm"]
    assert make.arguments is not None
    return ["--model", *make.arguments(launch), *engine.flags]


def vllm_variables(engine: EngineSettings) -> dict[str, str]:
    """The environment of vLLM's container for one engine."""
    more = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"} if engine.loras else {}
    return {**_VLLM_VARIABLES, **more}


_VLLM_VARIABLES: Final[Mapping[str, str]] = {
    "DO_NOT_TRACK": "1",
    "HF_HOME": "/models/hub",
    "HOME": "/tmp",
    # torch asks for the user's name, which a number without an entry in /etc/passwd has not.
    "TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor",
    "TRITON_CACHE_DIR": "/tmp/triton",
    "USER": "vllm",
    "VLLM_CACHE_ROOT": "/tmp/vllm",
    "VLLM_NO_USAGE_STATS": "1",
}


def mlflow_command(allowed: Sequence[str]) -> list[str]:
    """MLflow's server on PostgreSQL; the password comes from PGPASSWORD, which libpq reads."""
    return [
        "mlflow", "server", "--host", "0.0.0.0", "--port", str(MLFLOW_PORT), "--workers", "1",
        "--backend-store-uri", f"postgresql+psycopg://noria@postgres:{POSTGRES_PORT}/mlflow",
        "--artifacts-destination", "/artifacts", "--allowed-hosts", ",".join(allowed),
    ]  # fmt: skip


POSTGRES_INIT: Final = "CREATE DATABASE mlflow OWNER noria;\n"
"""MLflow and the ledger keep their migrations in a table of the same name: each has a database of its own."""


def project_file(plan: Plan, gpu: bool, listen: str, control: str, ledger: str | None) -> str:
    """noria.toml for containers: its own text with another [runtime], and vLLM's engines attached where `gpu`.

    Only tables of that name are replaced; comments and all other tables stay as they were written.
    """
    text = plan.settings.file.read_text()
    if re.search(r"^\s*(runtime|engines)\b", text, re.MULTILINE):
        raise Invalid("[runtime] and [engines.NAME] must be tables with a header of their own", "write them so")
    old = plan.settings.runtime
    runtime: dict[str, JsonValue] = {
        "lake": "./lake",
        "ledger": ledger or old.ledger,
        "tracking": f"http://mlflow:{MLFLOW_PORT}" if plan.mlflow else old.tracking,
        "spark": old.spark,
        "features": old.features,
        "device": old.device,
        "listen": listen,
        "control": control,
    }
    runtime |= old.model_dump(mode="json", include={"memory", "engine_log"}, exclude_defaults=True)
    text = _replaced(text, "runtime", runtime)
    if gpu:
        for name, engine in plan.gpu_engines.items():
            attached: dict[str, JsonValue] = {
                "kind": "vllm", "url": f"http://{engine_service(name)}:{ENGINE_PORT}/v1",
                "serves": engine.serves or name, "slots": engine.slots, "context": engine.context,
            }  # fmt: skip
            for key, kept in (("price", engine.price), ("health", engine.health)):
                # A table of its own stays where it is.
                own = re.search(rf"^\s*\[\s*engines\.{re.escape(name)}\.{key}\s*\]", text, re.MULTILINE)
                if not own and (given := kept.model_dump(mode="json", exclude_defaults=True)):
                    attached[key] = given
            text = _replaced(text, f"engines.{name}", attached)
    return text


def engine_service(name: str) -> str:
    """The host name of an engine's container; names of noria.toml may have underscores, host names may not."""
    return f"engine-{name.replace('_', '-').lower()}"


def _replaced(text: str, table: str, values: Mapping[str, JsonValue]) -> str:
    fresh = [f"[{table}]", *(f"{key} = {_toml(value)}" for key, value in values.items()), ""]
    lines = text.splitlines()
    heads = [number for number, line in enumerate(lines) if re.match(r"\s*\[", line)]
    pattern = re.compile(rf"\s*\[\s*{re.escape(table)}\s*\]")
    start = next((number for number in heads if pattern.match(lines[number])), None)
    if start is None:
        return "\n".join([*lines, "", *fresh])
    end = next((number for number in heads if number > start), len(lines))
    # Comments above the next table are about that one.
    while end < len(lines) and lines[end - 1].lstrip().startswith("#"):
        end -= 1
    return "\n".join([*lines[:start], *fresh, *lines[end:]]) + "\n"


def _toml(value: JsonValue) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(each)}' for key, each in value.items())} }}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def data_folders(settings: Settings) -> list[Path]:
    """The folders, relative to the project, that its files of data and its models lie in, outermost only.

    Raises Invalid for a path that leaves the project by `..`.
    """
    root, tops = os.path.normpath(settings.root), set()
    for text in _paths(settings):
        if "://" in text:
            continue
        whole = Path(os.path.normpath(Path(root) / text))
        if not whole.is_relative_to(root):
            if ".." in Path(text).parts:
                raise Invalid(f"'{text}' lies outside of the project", "move it to a folder beside noria.toml")
            continue
        parts = whole.relative_to(root).parts
        # What lies beside noria.toml itself is mounted where it is a folder, such as a model's.
        if (len(parts) > 1 or whole.is_dir()) and not set(parts[0]) & set("*?["):
            tops.add(Path(parts[0]))
    return sorted(tops)


def _paths(settings: Settings) -> Iterator[str]:
    yield from (str(source.path) for source in settings.sources if source.path is not None)
    for engine in settings.engines.values():
        models = [model for model in (engine.model, engine.reranker) if model is not None]
        # What is no file or folder of the project is an id on the hub.
        yield from (each for each in models if each.endswith(".gguf") or (settings.root / each).is_dir())
    for tool in settings.tools.values():
        for table in tool.tables.values():
            yield from (each for each in (table.path, table.columns) if each is not None)
