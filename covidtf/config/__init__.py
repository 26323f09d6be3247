"""Settings of each step, one frozen dataclass per notebook; its defaults are the notebook's."""

from covidtf.config.data import AugmentConfig, CTConfig, DataConfig, SourceConfig
from covidtf.config.reports import AblationConfig, ReportConfig, TransferConfig
from covidtf.config.training import DeepConfig, TrainConfig
from covidtf.settings import PLACES, ROOT, Config

__all__ = [
    "CONFIGS",
    "PLACES",
    "ROOT",
    "AblationConfig",
    "AugmentConfig",
    "CTConfig",
    "Config",
    "DataConfig",
    "DeepConfig",
    "ReportConfig",
    "SourceConfig",
    "TrainConfig",
    "TransferConfig",
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
    )
}
