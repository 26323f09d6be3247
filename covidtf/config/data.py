"""Settings of the steps that make data sets: X-rays, CT, source tasks, augmentation."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from covidtf.files import DataError
from covidtf.settings import NAME, Config, at_least, data_folder


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """Notebook 01: which X-rays, how they are prepared, how they are split.

    Args:
        data_folder: Folder that holds the public data sets, or links to them, under the names
            covid-chestxray-dataset, CheXpert-v1.0-small (else CheXpert-v1.0), ChestX-ray14 and COVID-XRay-5K;
            `""` is the environment variable `COVIDTF_DATA`. Phantoms need none.
        dataset: `sample` is covid-chestxray-dataset with ChestX-ray14; `v1` and `v3` are COVID-XRay-5K
            rebuilt from its sources, `released` the authors' own archive, whose URLs, views, sexes and ages
            come from covid-chestxray-dataset's `metadata.csv` if that is in `data_folder` too.
        missing: For `v3`, what to do when listed files are absent or altered.
        file_list: For `v1`, a list drawn earlier, to use again; `""` draws one.
        covid_train: For `v1` without a list, COVID-19 images in train, drawn by patient.
        covid_test: The same in test.
        strict: Drop train (or val) images whose patient, source URL or duplicate is in test.
        crop: `center` is the published code's short side and centre crop; `resize` a plain resize;
            `lungs` the box around the lungs, found by a classical method (`images.lungs`).
        grey: `stored`, or `equalised`: each image's histogram made flat, so that sources differ less in it.
        size: Side of the prepared squares in pixels.
        test_fraction: Share of each label's images in test where no split is published; whole patients move.
        patients: Phantoms to make, or real patients per split, label and source to keep; those left out are
            among the rejected. 0 makes 250 phantoms and keeps all real patients.
        shortcut: Give the phantoms' classes different scanner styles.
    """

    step: ClassVar[str] = "01_xray_dataset"
    smoke_values: ClassVar[dict[str, object]] = {"patients": 24}

    data_folder: str = ""
    dataset: Literal["phantom", "sample", "v1", "v3", "released"] = "phantom"
    missing: Literal["stop", "go on"] = "stop"
    file_list: str = ""
    covid_train: int = at_least(31, 1)
    covid_test: int = at_least(40, 1)
    strict: bool = False
    crop: Literal["center", "resize", "lungs"] = "center"
    grey: Literal["stored", "equalised"] = "stored"
    size: int = at_least(224, 32)
    test_fraction: float = at_least(0.3, 0.05)
    patients: int = at_least(0, 0)
    shortcut: bool = False

    @property
    def source_folder(self) -> Path:
        """Folder of the public data sets; raises as `data_folder` does."""
        return data_folder(self.data_folder, f"dataset {self.dataset!r}")


@dataclass(frozen=True, kw_only=True)
class CTConfig(Config):
    """Notebook 02: which CT studies, which of their slices, how they are split.

    Args:
        data_folder: Folder that holds `COVID19-Diag` or `COVID-CT`, or links to them; `""` is the environment
            variable `COVIDTF_DATA`. Phantoms need none.
        dataset: `phantom` is the package's own, `covid19-diag` the data set of the publication, by agreement
            only; `covid-ct` are single slices from papers, with a published train and val.
        level: Middle of the window, HU.
        window: Its width, HU.
        size: Side of the prepared squares in pixels.
        most_slices: Slices of a case at most; of more that show lung every so many are taken.
        least_slices: A case with fewer is rejected.
        least_lung: Smallest share of the body's area in a slice that is lung in one that is taken.
        test_fraction: Share of each label's cases in test where no split is published.
        cases: Phantom cases to make, or real cases per label and split to keep; those left out are among the
            rejected. 0 makes 225 phantom cases, as the publication has, and keeps all real ones.
        shortcut: Give the phantoms' classes different scanners.
        folds: Judge the trivial baseline by a cross-validation of so many folds too; 0 does not.
    """

    step: ClassVar[str] = "02_ct_dataset"
    smoke_values: ClassVar[dict[str, object]] = {"cases": 12, "most_slices": 6, "size": 64}

    experiment: str = field(default="phantom-ct", metadata={"pattern": NAME})
    data_folder: str = ""
    dataset: Literal["phantom", "covid19-diag", "covid-ct"] = "phantom"
    level: float = -600.0
    window: float = at_least(1500.0, 1.0)
    size: int = at_least(224, 32)
    most_slices: int = at_least(54, 1)
    least_slices: int = at_least(2, 1)
    least_lung: float = field(default=0.005, metadata={"minimum": 0.0, "maximum": 0.99})
    test_fraction: float = at_least(0.3, 0.05)
    cases: int = at_least(0, 0)
    shortcut: bool = False
    folds: int = at_least(0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.most_slices < self.least_slices:
            raise ValueError(
                "`most_slices` must be at least `least_slices`. "
                f"Received: {self.most_slices} < {self.least_slices}"
            )
        if self.folds in (1, 2):
            raise ValueError(f"`folds` must be 0, or at least 3. Received: {self.folds}")
        if self.dataset == "phantom" and self.cases in (1, 2):
            raise ValueError(f"`cases` must be 0, or at least 3, one per class. Received: {self.cases}")

    @property
    def source_folder(self) -> Path:
        """The data set's own folder; raises as `data_folder` does, or if it is absent there."""
        name = {"covid19-diag": "COVID19-Diag", "covid-ct": "COVID-CT"}[self.dataset]
        folder = data_folder(self.data_folder, f"dataset {self.dataset!r}") / name
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; dataset {self.dataset!r} is looked for there")
        return folder


@dataclass(frozen=True, kw_only=True)
class SourceConfig(Config):
    """Notebook 00: the images of a source task, on which a network learns before it learns X-rays.

    Args:
        data_folder: As in `DataConfig`.
        source: A folder of class folders (`<class>/*`, or `train/<class>/*` and `val/<class>/*`), a zip of
            one, each relative to `data_folder`; or `ChestX-ray14`, No Finding against Pneumonia, or
            `phantom`, the package's own, with and without COVID-19.
        target: For ChestX-ray14, a finished data step (`runs/EXPERIMENT/01_xray_dataset`) of the target task:
            the patients of its val and test are left out. `""` leaves out nobody.
        channels: 3 for colour, 1 for grey.
        size: Side of the prepared squares in pixels.
        images: Images per class and split to keep, drawn with the seed; 0 keeps all.
    """

    step: ClassVar[str] = "00_source_task"
    smoke_values: ClassVar[dict[str, object]] = {"images": 12, "size": 32}

    experiment: str = field(default="pretrain", metadata={"pattern": NAME})
    data_folder: str = ""
    source: str = "tiny-imagenet/tiny-imagenet-160.zip"
    target: str = ""
    channels: Literal[1, 3] = 3
    size: int = at_least(64, 32)
    images: int = at_least(0, 0)

    @property
    def source_folder(self) -> Path:
        """Folder of the public data sets; raises as `data_folder` does."""
        return data_folder(self.data_folder, f"source task {self.source!r}")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Config):
    """Notebook 03: more COVID-19 images for train, and how the classes are balanced in an epoch.

    Args:
        recipe: `released` is what the published images show, `paper` what its text says.
        factor: Images per original afterwards, the original counted.
        balance: Repeat the rarer class, leave out images of the other one, or (`source`) repeat the rarer
            class and show each source of a class equally often, see `splits.balance`.
        ratio: COVID-19 images per non-COVID image that `balance` aims at.
    """

    step: ClassVar[str] = "03_augmentation"
    reads: ClassVar[tuple[str, ...]] = ("01_xray_dataset",)

    recipe: Literal["released", "paper", "none"] = "released"
    factor: int = at_least(5, 1)
    balance: Literal["none", "oversample", "undersample", "source"] = "none"
    ratio: float = at_least(1.0, 0.01)
