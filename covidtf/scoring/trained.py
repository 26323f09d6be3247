"""What scoring needs to know of a finished run, read without Keras."""

from dataclasses import dataclass, field
from pathlib import Path

from covidtf.files import DataError, read_json, sha256
from covidtf.images import CROPS, GREYS

DEEP = ("auxiliary", "stages", "auxiliary_weight", "auxiliary_width", "folded", "fusion")


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        folder: The run folder.
        network: Name in `training.networks.NETWORKS`.
        classes: In the order of the logits.
        size: Side of the prepared images in px.
        channels: Of the prepared images.
        crop: How they were cut, see `images.fit`.
        grey: What was done to their grey values, see `images.fit`.
        precision: Keras dtype policy.
        sha256: Of the weights file, which is checked.
        threshold: Cut-off threshold on the score of `positive`; None where `metrics.json` has none.
        positive: The class that is detected, "" without a threshold.
        deep: The settings of deep supervision (`config.DeepConfig`), {} of other runs.
    """

    folder: Path
    network: str
    classes: list[str]
    size: int
    channels: int
    crop: str
    grey: str
    precision: str
    sha256: str
    threshold: float | None
    positive: str
    deep: dict[str, object] = field(default_factory=dict)

    @property
    def weights(self) -> Path:
        """The weights file."""
        return self.folder / "best.weights.h5"


def read(folder: str | Path) -> Trained:
    """Read `training.json`, find out how the images were prepared, and check the weights' sha256.

    Raises:
        DataError: If a file is absent, malformed or altered; names it.
    """
    folder = Path(folder)
    path = folder / "training.json"
    if not path.is_file():
        raise DataError(f"{folder}: not a finished run, training.json is missing")
    record = read_json(path)
    try:
        settings, recorded = record["settings"], record["sha256"]["best.weights.h5"]
        names = {name: settings[name] for name in ("network", "classes", "precision", "crop")}
        names["grey"] = settings.get("grey", "stored")
        height, width, channels = settings["shape"]
        deep = {name: settings[name] for name in DEEP} if "auxiliary" in settings else {}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not the record of a finished run: {error!r}") from error
    if height != width:
        raise DataError(f"{path}: `shape` must be of square images. Received: {settings['shape']}")
    for name, known in (("crop", CROPS), ("grey", GREYS)):
        if names[name] not in known:
            raise DataError(f"{path}: `{name}` must be one of {known}. Received: {names[name]!r}")
    threshold, positive = _threshold(folder / "metrics.json", names["classes"])
    trained = Trained(
        folder, **names, size=height, channels=channels, sha256=recorded,
        threshold=threshold, positive=positive, deep=deep,
    )  # fmt: skip
    if not trained.weights.is_file():
        raise DataError(f"{trained.weights}: no such file; weights are not published, train that run first")
    found = sha256(trained.weights)
    if found != recorded:
        raise DataError(f"{trained.weights}: sha256 must be {recorded}, as in {path.name}. Received: {found}")
    return trained


def _threshold(path: Path, classes: list[str]) -> tuple[float | None, str]:
    if not path.is_file():
        return None, ""
    metrics = read_json(path)
    # Several classes are called by their highest score: their metrics have no threshold.
    if "threshold" not in metrics:
        return None, ""
    try:
        threshold, positive = float(metrics["threshold"]["value"]), metrics["positive"]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: no cut-off threshold in it: {error!r}") from error
    if positive not in classes:
        raise DataError(f"{path}: `positive` must be one of {classes}. Received: {positive!r}")
    return threshold, positive
