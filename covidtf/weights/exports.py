"""Weights of finished runs for others: as a file that PyTorch reads too, or to ship with the package."""

from pathlib import Path

from covidtf.files import DataError, read_json
from covidtf.weights import export, places, write_shipped


def export_run(folder: str | Path, path: str | Path) -> Path:
    """Write a finished run's weights as `.safetensors` in torchvision's names and PyTorch's layout.

    Of a run with auxiliary heads it is the network with the main head, which others know. So its scores are
    not those of the run where these are fused, and a folded first layer is divided among three channels
    again (`networks.supervised.plain`).

    Raises:
        DataError: No finished run, or altered weights.
        ValueError: `path` has another ending.
    """
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"the file must end in .safetensors. Received: {path}")
    model, record = _load(Path(folder))
    return export(model, record["settings"]["classes"], path)


def ship_run(folder: str | Path, name: str, terms: str, to: Path = places.SHIPPED) -> Path:
    """Make a finished source-task run the weights `name` of the package, with the record of its training.

    Args:
        folder: Run folder.
        name: What `weights` calls them.
        terms: On what terms the images may be used that the weights come from.
    Raises:
        DataError: As `export_run`, or the run's code was not that of a commit.
    """
    folder = Path(folder)
    model, record = _load(folder)
    if record["origin"]["dirty"] is not False:
        raise DataError(f"{folder}: was trained with code that no commit holds; train it from a clean clone")
    told = {
        "classes": record["settings"]["classes"],
        "run_id": folder.resolve().name,
        "training": {key: value for key, value in record["settings"].items() if key != "classes"},
        "best_epoch": record["best_epoch"],
        "seconds": record["seconds"],
        "test": read_json(folder / "metrics.json")["test"],
        "commit": record["origin"]["commit"],
        "time": record["origin"]["time"],
        "environment": record["origin"]["environment"],
        "run_weights_sha256": record["sha256"]["best.weights.h5"],
        "terms": terms,
    }
    return write_shipped(model, name, told, to)


def _load(folder: Path):
    from covidtf.weights import finished_run, load_run

    record = finished_run(folder)
    return load_run(folder, record["settings"]), record
