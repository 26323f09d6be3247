"""Settings of the steps that compare runs."""

from dataclasses import dataclass, field
from typing import ClassVar

from covidtf.settings import NAME, Config, at_least


@dataclass(frozen=True, kw_only=True)
class ReportConfig(Config):
    """Notebook 06: any number of runs, from their predictions alone.

    Args:
        run_ids: Run folders of the experiment, separated by spaces; `*` takes all there are.
        rule: How the cut-off threshold is chosen on val: `youden` or `sensitivity>=0.95` (any share).
        draws: Bootstrap draws of patients.
    """

    step: ClassVar[str] = "06_report"
    reads: ClassVar[tuple[str, ...]] = ("01_xray_dataset", "03_augmentation", "04_transfer_learning")
    smoke_values: ClassVar[dict[str, object]] = {"draws": 100}

    run_ids: str = "*"
    rule: str = field(default="youden", metadata={"pattern": r"youden|sensitivity>=(0?\.\d+|1(\.0)?)"})
    draws: int = at_least(2000, 50)


@dataclass(frozen=True, kw_only=True)
class TransferConfig(Config):
    """Notebook 09: runs of one data set that differ in where they started and in what was trained.

    Args:
        run_ids: As in `ReportConfig`.
        within: Source whose images are also judged alone.
        draws: Bootstrap draws of patients.
    """

    step: ClassVar[str] = "09_transfer"
    reads: ClassVar[tuple[str, ...]] = ("04_transfer_learning",)
    smoke_values: ClassVar[dict[str, object]] = {"draws": 100}

    experiment: str = field(default="xray-transfer", metadata={"pattern": NAME})
    run_ids: str = "*"
    within: str = "covid-chestxray-dataset"
    draws: int = at_least(2000, 50)


@dataclass(frozen=True, kw_only=True)
class AblationConfig(Config):
    """Notebook 10: runs of one CT data set that differ in the loss, the start or the fold.

    Args:
        run_ids: As in `ReportConfig`.
        draws: Bootstrap draws of patients.
    """

    step: ClassVar[str] = "10_ablation"
    reads: ClassVar[tuple[str, ...]] = ("05_deep_supervision",)
    smoke_values: ClassVar[dict[str, object]] = {"draws": 100}

    experiment: str = field(default="phantom-ct", metadata={"pattern": NAME})
    run_ids: str = "*"
    draws: int = at_least(2000, 50)
