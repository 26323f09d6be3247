"""Settings of the audit."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from covidtf.settings import Config, at_least


@dataclass(frozen=True, kw_only=True)
class AuditConfig(Config):
    """Notebook 08: a data set and the networks trained on it, checked against stated thresholds.

    Args:
        run_ids: As in `ReportConfig`.
        probe_network: Backbone of the probe, on whose outputs the controls are trained.
        probe_weights: What the backbone starts from, as in `TrainConfig`.
        shuffles: Of the labels, for the label-shuffle control.
        draws: Bootstrap draws of patients.
        seed: Of the draws, the shuffles and the permuted patches.
    """

    step: ClassVar[str] = "08_audit"
    reads: ClassVar[tuple[str, ...]] = (
        "01_xray_dataset",
        "02_ct_dataset",
        "03_augmentation",
        "04_transfer_learning",
        "05_deep_supervision",
    )
    smoke_values: ClassVar[dict[str, object]] = {"draws": 100, "shuffles": 3}

    run_ids: str = "*"
    probe_network: Literal["ResNet18", "ResNet50", "SqueezeNet1_0", "SqueezeNet1_1", "DenseNet121"] = (
        "SqueezeNet1_0"
    )
    probe_weights: str = "tiny-imagenet"
    shuffles: int = at_least(20, 2)
    draws: int = at_least(2000, 50)
