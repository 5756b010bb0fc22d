"""Tables of the machine: where things run, engines."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from noria.settings.base import DEVICE, Address, Name, Table


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
    listen: Address = "127.0.0.1:8000"
    """Address of the data plane; port 0 takes a free one."""
    control: Address = "127.0.0.1:8001"
    """Address of the control plane."""


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

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.reranker is not None and self.kind != "encoder":
            raise ValueError(f"reranker is for kind encoder, not {self.kind}")
        if (self.model is None) == (self.url is None):
            raise ValueError("give either model (noria launches the engine) or url (it already runs)")
        return self
