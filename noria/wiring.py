"""open_platform: from settings to the bag of back-ends, found by entry points."""

from __future__ import annotations

from functools import cache, partial
from importlib.metadata import entry_points
from pathlib import Path

from noria import settings as reading
from noria.backends import ledger
from noria.backends.clock import SystemClock
from noria.backends.feast_store import FeastStore
from noria.backends.folder_lake import FolderLake
from noria.backends.fts import Indexes
from noria.backends.optuna_search import OptunaStudies
from noria.errors import Invalid
from noria.ports import EngineKind, Platform, Tokenizer
from noria.settings import EngineSettings, Settings, known
from noria.traffic.log import TrafficLog


def open_platform(settings: Settings) -> Platform:
    """Open every back-end that the settings name; raises Invalid or Unavailable with the place of the fault."""
    from noria.backends import encoder_trainer, mlflow_registry, mlflow_tracking, peft_trainer, plots, spark

    root, state = settings.root, settings.state
    lake = local_lake(settings)
    state.mkdir(exist_ok=True)
    database = ledger.open_engine(settings.runtime.ledger, root)
    trainer = peft_trainer.PeftTrainer(state / "models", settings.runtime.device, settings.runtime.sharded)

    @cache
    def tokenizer(model: Path) -> Tokenizer:
        from noria.backends.chat_tokenizer import ChatTokenizer
        from noria.backends.encoder_model import is_encoder
        from noria.backends.encoder_tokenizer import EncoderTokenizer

        if is_encoder(model):
            return EncoderTokenizer(model)
        return ChatTokenizer(trainer.tokenizer(model))

    return Platform(
        settings=settings,
        clock=SystemClock(),
        lake=FolderLake(lake),
        runs=ledger.SqlRuns(database),
        deployments=ledger.SqlDeployments(database),
        keys=ledger.SqlKeys(database),
        engines=engine_kinds(settings),
        model=base_model,
        tokenizer=tokenizer,
        trainer=trainer,
        heads=encoder_trainer.EncoderTrainer(),
        tracking=mlflow_tracking.MlflowTracking(settings.runtime.tracking, root),
        registry=mlflow_registry.MlflowRegistry(settings.runtime.tracking, root),
        indexes=Indexes(),
        traffic=TrafficLog(state / "segments", lake),
        draw=plots.report,
        studies=OptunaStudies(settings.runtime.ledger, root),
        spark=partial(spark.session, settings.runtime.spark),
        alerts=ledger.SqlAlerts(database),
        features=FeastStore(settings.runtime.features, root, state / "features"),
    )


def local_lake(settings: Settings) -> Path:
    """The lake's folder; raises Invalid for an object store, which this version does not write to."""
    text = settings.runtime.lake
    if "://" in text:
        raise Invalid(
            f"the lake '{text}' is not a folder",
            'use a folder such as "./lake"',
            where=settings.place("runtime", "lake"),
        )
    return (settings.root / text).resolve()


def engine_kinds(settings: Settings) -> dict[str, EngineKind]:
    """The kinds of engine in use, by name; raises Invalid for one that nobody provides."""
    doors = {door.name: door for door in entry_points(group="noria.engines")}
    for name, engine in settings.engines.items():
        if engine.kind not in doors:
            raise Invalid(
                f"engine '{name}' is of unknown kind '{engine.kind}'",
                known(engine.kind, doors),
                where=settings.place("engines", name, "kind"),
            )
    return {kind: doors[kind].load()() for kind in {engine.kind for engine in settings.engines.values()}}


def engine_kind(name: str) -> EngineKind:
    """The kind of engine of this name; raises Invalid for one that nobody provides."""
    doors = {door.name: door for door in entry_points(group="noria.engines")}
    if name not in doors:
        raise Invalid(f"'{name}' is no kind of engine", known(name, doors))
    kind: EngineKind = doors[name].load()()
    return kind


def base_model(name: str) -> Path:
    """The file of a base model, or the folder of an encoder, by its known name or its path."""
    from noria.backends import encoder_model, llamacpp

    if name in encoder_model.PACKAGED or encoder_model.is_encoder(Path(name)):
        return encoder_model.encoder_folder(name)
    return llamacpp.model_path(EngineSettings(kind="llamacpp", model=name))


def open_project(start: Path) -> Platform:
    """Find noria.toml from `start` upwards and open its platform."""
    return open_platform(reading.load(reading.find(start)))
