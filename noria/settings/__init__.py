"""noria.toml and the environment, typed. The only room that reads the environment."""

from noria.settings.base import Address, Name, Share, Table
from noria.settings.environment import child_environment, engine_key, environment, export
from noria.settings.file import Settings, find, known, line_of, load
from noria.settings.gateway import GatewaySettings, LimitSettings
from noria.settings.judge import JudgeExample, JudgeSettings, Method, Need
from noria.settings.labels import ComparisonSettings, LabelSettings
from noria.settings.platform import EngineSettings, PriceSettings, ProjectSettings, RuntimeSettings
from noria.settings.poisoning import PoisoningSettings
from noria.settings.source import SourceSettings
from noria.settings.split import FeedbackSettings, SplitSettings, SyntheticSettings
from noria.settings.task import (
    Action,
    ArmSettings,
    ContextSettings,
    Detector,
    GateSettings,
    GuardSettings,
    LightSettings,
    RecipeSettings,
    RecordSettings,
    ReleaseSettings,
    TaskSettings,
    ThresholdSettings,
)

__all__ = [
    "Action",
    "Address",
    "ArmSettings",
    "ComparisonSettings",
    "ContextSettings",
    "Detector",
    "EngineSettings",
    "FeedbackSettings",
    "GateSettings",
    "GatewaySettings",
    "GuardSettings",
    "JudgeExample",
    "JudgeSettings",
    "LabelSettings",
    "LightSettings",
    "LimitSettings",
    "Method",
    "Name",
    "Need",
    "PoisoningSettings",
    "PriceSettings",
    "ProjectSettings",
    "RecipeSettings",
    "RecordSettings",
    "ReleaseSettings",
    "RuntimeSettings",
    "Settings",
    "Share",
    "SourceSettings",
    "SplitSettings",
    "SyntheticSettings",
    "Table",
    "TaskSettings",
    "ThresholdSettings",
    "child_environment",
    "engine_key",
    "environment",
    "export",
    "find",
    "known",
    "line_of",
    "load",
]
