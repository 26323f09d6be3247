"""Settings of the steps that train a network."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from covidtf.settings import NAME, Config, at_least


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """Notebook 04: one network, one run.

    Args:
        data: Step whose prepared data set is trained on.
        network: Name in `covidtf.training.networks.NETWORKS`.
        weights: What it starts from: `none` (random), `imagenet` (torchvision's, see `covidtf.weights`),
            `tiny-imagenet` (ships with the package), a checkpoint file, or the folder of an earlier run.
        epochs: Passes over train.
        head_epochs: How many of these, at first, train the last layer alone; all is the paper's recipe.
        batch_size: Images per step.
        optimizer: `adam`, or `sgd` with momentum 0.9.
        learning_rate: The highest of the schedule.
        schedule: `constant`; `step` divides by 10 every 7 epochs, as the published code; `cosine` rises over
            the first twentieth of the epochs and falls to 0. Head and other epochs have one each.
        random_crop: Smallest share of an image's area in the random crop that each epoch shows of it, scaled
            to full size (the published code's RandomResizedCrop has 0.08); 1 shows the whole image.
        random_flip: Show half of the images mirrored.
        mixed_precision: 16-bit arithmetic where the device is faster with it.
    """

    step: ClassVar[str] = "04_transfer_learning"
    reads: ClassVar[tuple[str, ...]] = ("00_source_task", "01_xray_dataset", "03_augmentation")
    smoke_values: ClassVar[dict[str, object]] = {"epochs": 1, "head_epochs": 0}

    data: Literal["00_source_task", "01_xray_dataset", "03_augmentation"] = "03_augmentation"
    network: Literal["ResNet18", "ResNet50", "SqueezeNet1_0", "SqueezeNet1_1", "DenseNet121"] = "ResNet18"
    weights: str = "none"
    epochs: int = at_least(100, 1)
    head_epochs: int = at_least(0, 0)
    batch_size: int = at_least(20, 1)
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = at_least(1e-4, 1e-9)
    schedule: Literal["constant", "step", "cosine"] = "constant"
    random_crop: float = field(default=1.0, metadata={"minimum": 0.01, "maximum": 1.0})
    random_flip: bool = False
    mixed_precision: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_epochs > self.epochs:
            raise ValueError(
                f"`head_epochs` must be at most `epochs`. Received: {self.head_epochs} > {self.epochs}"
            )

    @property
    def run_id(self) -> str:
        """`<network>-seed<seed>-<first eight digits of the settings' sha256>`."""
        return f"{self.network}-seed{self.seed}-{self.digest()[:8]}"

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.experiment_folder / self.run_id


@dataclass(frozen=True, kw_only=True)
class DeepConfig(TrainConfig):
    """Notebook 05: one network with auxiliary heads, one loss, one run. What is not here is `TrainConfig`'s.

    Args:
        loss: Of each head; `generalized` and `symmetric` cross-entropy are meant for noisy labels.
        beta: Of the effective number of a class's slices, in [0, 1); 0 weighs all classes alike.
        auxiliary: Whether inner stages have heads, and how their losses are weighted.
        stages: Numbers of the stages that have one, from 1, separated by spaces; `""` is the default.
        auxiliary_weight: Weight of each auxiliary head's loss where it is `fixed`.
        auxiliary_width: Channels of an auxiliary head's convolution; 0 leaves it out.
        fusion: Whose score counts: the main head's, the mean over all heads, or that by learned weights.
        folded: Give the network a first layer of one channel instead of three equal ones.
        random_grey: Largest change of contrast and brightness of what an epoch shows, as a share.
        label_noise: Share of train's cases that are given another label, for tests of the loss.
        folds: Divide train and val by patient into so many folds instead (`case_splits.fold`); 0 does not.
        fold: Which of them is test, from 0.
    """

    step: ClassVar[str] = "05_deep_supervision"
    reads: ClassVar[tuple[str, ...]] = ("02_ct_dataset",)

    experiment: str = field(default="phantom-ct", metadata={"pattern": NAME})
    data: Literal["02_ct_dataset"] = "02_ct_dataset"
    loss: Literal["cross_entropy", "generalized", "symmetric"] = "cross_entropy"
    beta: float = field(default=0.999, metadata={"minimum": 0.0, "maximum": 1 - 1e-9})
    auxiliary: Literal["none", "fixed", "learned"] = "learned"
    stages: str = field(default="", metadata={"pattern": r"(\d( \d)*)?"})
    auxiliary_weight: float = at_least(0.3, 0.0)
    auxiliary_width: int = at_least(128, 0)
    fusion: Literal["main", "mean", "learned"] = "main"
    folded: bool = True
    random_grey: float = field(default=0.0, metadata={"minimum": 0.0, "maximum": 0.9})
    label_noise: float = field(default=0.0, metadata={"minimum": 0.0, "maximum": 0.9})
    folds: int = at_least(0, 0)
    fold: int = at_least(0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.folds in (1, 2) or self.fold >= max(self.folds, 1):
            raise ValueError(
                "`folds` must be 0, or at least 3 and more than `fold`. "
                f"Received: folds {self.folds}, fold {self.fold}"
            )
