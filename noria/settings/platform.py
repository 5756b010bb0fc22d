"""Tables of the machine: where things run, engines."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from noria.settings.base import DEVICE, Address, Name, Size, Table, bytes_of


class ProjectSettings(Table):
    """[project]: what this folder is called."""

    name: Name


class RuntimeSettings(Table):
    """[runtime]: the only table that differs between a laptop and a cluster."""

    lake: str = "./lake"
    ledger: str = "sqlite:///noria.db"
    tracking: str = "sqlite:///mlflow.db"
    spark: str = "embedded"
    features: str = "sqlite:///.noria/features/online.db"
    """The online store: sqlite:///FILE, redis://HOST:6379/0 or postgresql+psycopg://USER@HOST/DATABASE."""
    device: str = Field(default="auto", pattern=DEVICE)
    """Where models are trained: auto, cpu, cuda, or several processes that train together: cuda:4, cpu:2."""
    sharded: bool = False
    """Each of several processes holds a part of the layers' frozen weights only (FSDP), for bases that no device holds.

    While it is loaded, each process has the whole base in main memory.
    """
    listen: Address = "127.0.0.1:8000"
    """Address of the data plane; port 0 takes a free one."""
    control: Address = "127.0.0.1:8001"
    """Address of the control plane."""
    memory: Size | None = None
    """What all launched engines together may take; the least recently used one with `idle` makes room for another."""
    engine_log: Size = "10MB"
    """Size at which an engine's log is put aside; the three last ones are kept."""

    @property
    def memory_bytes(self) -> int | None:
        """`memory` in bytes; None without a bound."""
        return None if self.memory is None else bytes_of(self.memory)

    @property
    def engine_log_bytes(self) -> int:
        """`engine_log` in bytes."""
        return bytes_of(self.engine_log)


class PriceSettings(Table):
    """engines.NAME.price: what a million tokens cost, and an hour of its machine, in any one currency."""

    prompt: float = Field(default=0.0, ge=0.0)
    completion: float = Field(default=0.0, ge=0.0)
    hour: float = Field(default=0.0, ge=0.0)
    """Counts while an answer is made; a machine that waits costs as much, which no answer can tell."""

    @property
    def known(self) -> bool:
        """Whether anything was said."""
        return bool(self.prompt or self.completion or self.hour)

    def of(self, seconds: float | None, prompt: int | None, completion: int | None) -> float | None:
        """What an answer cost; None where something that has a price was not measured."""
        if (self.hour and seconds is None) or ((self.prompt or self.completion) and None in (prompt, completion)):
            return None
        tokens = ((prompt or 0) * self.prompt + (completion or 0) * self.completion) / 1e6
        return tokens + (seconds or 0.0) * self.hour / 3600


LAUNCHED: Final = frozenset({
    "program", "container", "image", "port", "device", "gpus", "dtype", "quantization", "memory_share", "cache_gib",
    "remote_code", "flags",
})  # fmt: skip
"""Settings that say how an engine is launched."""


CALLING: Final = ("native", "schema")
"""What `tools` of an attached engine may be."""


class HealthSettings(Table):
    """engines.NAME.health: a real request for one token, beside the look at its health page twice a second."""

    every: float | None = Field(default=None, ge=0.0)
    """Seconds between two of them: 15 for a launched engine; an attached one is asked only where this is given."""
    limit: float = Field(default=30.0, gt=0.0)
    """Seconds for one token, and for as many again as there are full rounds of requests before it; else it hangs."""


class EngineSettings(Table):
    """[engines.NAME]: launched by noria when `model` is given, attached when `url` is."""

    kind: str
    model: str | None = None
    url: str | None = None
    replicas: int = Field(default=1, ge=1, le=64)
    """Processes that noria launches."""
    urls: tuple[str, ...] = ()
    """More servers of an attached engine, equal to the one at `url`."""
    price: PriceSettings = PriceSettings()
    key: str | None = None
    """Name of the environment variable that holds the API key of an attached engine."""
    slots: int = Field(default=4, ge=1, le=256)
    context: int = Field(default=2048, ge=128)
    """Tokens per slot."""
    threads: int | None = Field(default=None, ge=1)
    serves: str | None = None
    """Which of an attached server's models is asked; the first that it lists without it."""
    reranker: str | None = None
    """For kind encoder: the folder of a cross-encoder that ranks; without it the similarity of vectors does."""
    program: str | None = None
    """Executable or Python of the engine's own environment; without it the engine's command is looked for in PATH."""
    container: Literal["docker", "podman"] | None = None
    """Launch it as a container, by this command, in place of a process."""
    image: str | None = None
    """The container's image; without it the one that noria's table names."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """Of a launched engine, on the loopback; without it a free one."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gpus: int = Field(default=1, ge=1, le=64)
    """Over how many the model is split."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][\w.-]*$")
    """In the engine's own words, such as awq_marlin."""
    tools: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][\w.-]*$")
    """The engine's parser of the model's tool calls, such as hermes; without it there are none in OpenAI's form.

    Of an attached engine: native (its model calls tools in OpenAI's form) or schema; it is asked without it.
    """
    loras: int = Field(default=0, ge=0, le=256)
    """Places for adapters that are loaded while it runs, beside those it is started with."""
    memory_share: float | None = Field(default=None, gt=0.0, le=1.0)
    """Of a GPU's memory, for all that the engine keeps there."""
    cache_gib: float | None = Field(default=None, gt=0.0)
    """KV cache of an engine on a CPU, in GiB."""
    remote_code: bool = False
    """Let the engine run code that lies beside the model."""
    flags: tuple[str, ...] = ()
    """More arguments for the engine's command line, as they are."""
    idle: float | None = Field(default=None, gt=0.0)
    """Seconds without a request after which it is unloaded; it is then started by the next request. None: never."""
    memory: Size | None = None
    """Resident memory of one replica's process tree at which it is restarted."""
    cpus: int | None = Field(default=None, ge=1)
    """Cores that one replica may run on; it has as many threads where `threads` does not say."""
    start_limit: float | None = Field(default=None, gt=0.0, le=86400.0)
    """Seconds in which it must answer after its start: 60, or 600 for an outside engine, which loads its model then."""
    health: HealthSettings = HealthSettings()

    @property
    def memory_bytes(self) -> int | None:
        """`memory` in bytes; None without a bound."""
        return None if self.memory is None else bytes_of(self.memory)

    @property
    def probe_seconds(self) -> float:
        """Seconds between two requests for one token; 0 for none."""
        if self.health.every is None:
            return 0.0 if self.model is None else 15.0
        return self.health.every

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.model is None and (here := [each for each in ("idle", "memory", "cpus") if getattr(self, each)]):
            raise ValueError(f"{here[0]} is for engines that noria launches, by model")
        if self.reranker is not None and self.kind != "encoder":
            raise ValueError(f"reranker is for kind encoder, not {self.kind}")
        if (self.model is None) == (self.url is None):
            raise ValueError("give either model (noria launches the engine) or url (it already runs)")
        if self.url is not None and (told := sorted(LAUNCHED & self.model_fields_set)):
            raise ValueError(f"{told[0]} is for an engine that noria launches, and this one is attached by its url")
        if self.tools is not None and (self.tools in CALLING) != (self.url is not None):
            raise ValueError(
                "tools of an attached engine is native or schema, of a launched one its parser of the model's calls"
            )
        if self.container is not None and self.program is not None:
            raise ValueError("program and container exclude each other")
        if self.port is not None and self.replicas > 1:
            raise ValueError("replicas cannot share one port: leave port out")
        return self
