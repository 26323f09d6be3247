"""Settings of the steps that compare runs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from covidtf.settings import NAME, ROOT, Config, at_least

_SHARE = r"(?:0?\.\d+|1(?:\.0)?)"
_RULE = rf"youden|sensitivity>={_SHARE}"
_CHOICE = rf"(?:youden|{_SHARE})"
_GROUP = "(?:view|sex|age|finding|source)"


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
    rule: str = field(default="youden", metadata={"pattern": _RULE})
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


@dataclass(frozen=True, kw_only=True)
class UseConfig(Config):
    """Notebook 13: what the scores of any number of runs are worth in use, from their predictions alone.

    Args:
        run_ids: As in `ReportConfig`.
        positive: Label to detect, against all others.
        rules: How thresholds are chosen on val, separated by spaces: `youden`, or a least sensitivity in
            (0, 1]; the first is that of the subgroups.
        prevalences: At which PPV and NPV are told, in (0, 1), separated by spaces.
        groups: By what subgroups are made, separated by spaces: some of view, sex, age, finding and source.
        bins: Of the reliability diagram and ECE, at most.
        draws: Bootstrap draws of patients.
    Raises:
        ValueError: A prevalence is not in (0, 1), or as `Config`.
    """

    step: ClassVar[str] = "13_use"
    reads: ClassVar[tuple[str, ...]] = (
        "01_xray_dataset",
        "02_ct_dataset",
        "03_augmentation",
        "04_transfer_learning",
        "05_deep_supervision",
    )
    smoke_values: ClassVar[dict[str, object]] = {"draws": 100}

    run_ids: str = "*"
    positive: str = "COVID-19"
    # Papermill cannot read a text that holds an equals sign.
    rules: str = field(default="youden 0.95", metadata={"pattern": rf"{_CHOICE}(?: {_CHOICE})*"})
    prevalences: str = field(
        default="0.01 0.02 0.05 0.1 0.2 0.5", metadata={"pattern": r"0?\.\d+(?: 0?\.\d+)*"}
    )
    groups: str = field(
        default="view sex age finding source", metadata={"pattern": rf"{_GROUP}(?: {_GROUP})*"}
    )
    bins: int = at_least(10, 1)
    draws: int = at_least(2000, 50)

    def __post_init__(self) -> None:
        super().__post_init__()
        bad = [value for value in self.stated if not 0 < value < 1]
        if bad:
            raise ValueError(f"{self.step}: `prevalences` must be in (0, 1). Received: {bad[0]}")

    @property
    def chosen_by(self) -> list[str]:
        """The rules as `metrics.thresholds.choose` names them."""
        return [rule if rule == "youden" else f"sensitivity>={rule}" for rule in self.rules.split()]

    @property
    def stated(self) -> list[float]:
        """The prevalences as numbers."""
        return [float(value) for value in self.prevalences.split()]


@dataclass(frozen=True, kw_only=True)
class RecipeConfig(Config):
    """Notebook 12: what a recipe does to the dependence on the source.

    Args:
        data: Folders of finished data steps of the same images, separated by spaces; the first is without the
            recipe. In an experiment file `$NAME` is the folder of an earlier step.
        before: Run folders of networks without the recipe, separated by spaces; `""` for none.
        after: Those with it, in the same order.
        network: Backbone of the probe, see `AuditConfig`.
        weights: What the backbone starts from, as in `TrainConfig`.
        folds: Of the probe's cross-validation.
        draws: Bootstrap draws of patients.
    """

    step: ClassVar[str] = "12_recipe"
    reads: ClassVar[tuple[str, ...]] = ("01_xray_dataset", "04_transfer_learning")
    smoke_values: ClassVar[dict[str, object]] = {"draws": 100, "folds": 3}

    experiment: str = field(default="xray-recipe", metadata={"pattern": NAME})
    data: str = ""
    before: str = ""
    after: str = ""
    network: Literal["ResNet18", "ResNet50", "SqueezeNet1_0", "SqueezeNet1_1", "DenseNet121"] = (
        "SqueezeNet1_0"
    )
    weights: str = "tiny-imagenet"
    folds: int = at_least(5, 2)
    draws: int = at_least(2000, 50)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.before.split()) != len(self.after.split()):
            raise ValueError(
                "`before` and `after` must name equally many runs. "
                f"Received: {self.before!r} and {self.after!r}"
            )

    @staticmethod
    def folders(text: str) -> list[Path]:
        """The folders that a parameter names; relative ones start at the repository's root."""
        return [ROOT / Path(name).expanduser() for name in text.split()]
