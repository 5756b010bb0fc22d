"""noria.toml and the environment, typed. The only room that reads the environment."""

from noria.settings.base import Address, Name, Share, Table, known
from noria.settings.clean import (
    CLEANING,
    STEPS,
    BoilerplateStep,
    CleanStep,
    LanguageStep,
    MissingStep,
    options_of,
)
from noria.settings.environment import child_environment, engine_key, environment, export
from noria.settings.file import Settings, find, line_of, load
from noria.settings.gateway import GatewaySettings, LimitSettings
from noria.settings.judge import JudgeExample, JudgeSettings, Method, Need
from noria.settings.labels import ComparisonSettings, LabelSettings
from noria.settings.platform import EngineSettings, PriceSettings, ProjectSettings, RuntimeSettings
from noria.settings.poisoning import PoisoningSettings
from noria.settings.recipe import FewShotRecipe, LoraRecipe, Recipe, RecipeSettings, WeightRecipe
from noria.settings.registry import RegistrySettings
from noria.settings.scrub import PersonalKind, ScrubAction, ScrubSettings
from noria.settings.source import ColumnType, CrawlSettings, FileLimits, Kind, SourceSettings
from noria.settings.split import FeedbackSettings, SplitSettings, SyntheticSettings
from noria.settings.task import (
    Action,
    ArmSettings,
    ContextSettings,
    Detector,
    GateSettings,
    GuardSettings,
    LightSettings,
    RecordSettings,
    ReleaseSettings,
    TaskSettings,
    ThresholdSettings,
)

__all__ = [
    "CLEANING",
    "STEPS",
    "Action",
    "Address",
    "ArmSettings",
    "BoilerplateStep",
    "CleanStep",
    "ColumnType",
    "ComparisonSettings",
    "ContextSettings",
    "CrawlSettings",
    "Detector",
    "EngineSettings",
    "FeedbackSettings",
    "FewShotRecipe",
    "FileLimits",
    "GateSettings",
    "GatewaySettings",
    "GuardSettings",
    "JudgeExample",
    "JudgeSettings",
    "Kind",
    "LabelSettings",
    "LanguageStep",
    "LightSettings",
    "LimitSettings",
    "LoraRecipe",
    "Method",
    "MissingStep",
    "Name",
    "Need",
    "PersonalKind",
    "PoisoningSettings",
    "PriceSettings",
    "ProjectSettings",
    "Recipe",
    "RecipeSettings",
    "RecordSettings",
    "RegistrySettings",
    "ReleaseSettings",
    "RuntimeSettings",
    "ScrubAction",
    "ScrubSettings",
    "Settings",
    "Share",
    "SourceSettings",
    "SplitSettings",
    "SyntheticSettings",
    "Table",
    "TaskSettings",
    "ThresholdSettings",
    "WeightRecipe",
    "child_environment",
    "engine_key",
    "environment",
    "export",
    "find",
    "known",
    "line_of",
    "load",
    "options_of",
]
