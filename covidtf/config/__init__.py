"""Settings of each step, one frozen dataclass per notebook; its defaults are the notebook's."""

from covidtf.config.audit import AuditConfig
from covidtf.config.data import AugmentConfig, CTConfig, DataConfig, SourceConfig
from covidtf.config.maps import HeatMapConfig
from covidtf.config.reports import AblationConfig, RecipeConfig, ReportConfig, TransferConfig, UseConfig
from covidtf.config.training import DeepConfig, TrainConfig
from covidtf.config.trial import TrialConfig
from covidtf.settings import PLACES, ROOT, Config

__all__ = [
    "CONFIGS",
    "PLACES",
    "ROOT",
    "AblationConfig",
    "AuditConfig",
    "AugmentConfig",
    "CTConfig",
    "Config",
    "DataConfig",
    "DeepConfig",
    "HeatMapConfig",
    "RecipeConfig",
    "ReportConfig",
    "SourceConfig",
    "TrainConfig",
    "TransferConfig",
    "TrialConfig",
    "UseConfig",
]

CONFIGS = {
    config.step: config
    for config in (
        SourceConfig,
        DataConfig,
        CTConfig,
        AugmentConfig,
        TrainConfig,
        DeepConfig,
        ReportConfig,
        TransferConfig,
        AblationConfig,
        HeatMapConfig,
        AuditConfig,
        TrialConfig,
        RecipeConfig,
        UseConfig,
    )
}
