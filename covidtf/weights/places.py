"""What the setting `weights` names: found, checked and told apart by content, without Keras."""

import hashlib
from pathlib import Path

from covidtf.config import ROOT
from covidtf.files import DataError, read_json, sha256
from covidtf.weights import imagenet

SHIPPED = Path(__file__).with_name("shipped")
CHECKPOINTS = (".pth", ".pt", ".safetensors")
PROVENANCE = "provenance.json"


def kind(weights: str) -> str:
    """`none`, `imagenet`, `shipped` (a name of weights in the package), `file` or `run`.

    Raises:
        DataError: If it is none of them; says what there is.
    """
    if weights in ("none", "imagenet"):
        return weights
    if weights in _shipped_names().values():
        return "shipped"
    path = locate(weights)
    if path.is_dir():
        return "run"
    if path.is_file() and path.suffix in CHECKPOINTS:
        return "file"
    words = ", ".join(dict.fromkeys(["none", "imagenet", *_shipped_names().values()]))
    raise DataError(
        f"`weights`: {weights} is not the folder of a finished run, nor a checkpoint file "
        f"({', '.join(CHECKPOINTS)}), nor one of {words}"
    )


def locate(weights: str) -> Path:
    """Path of a run folder or a file; relative ones start at the repository's root."""
    return ROOT / Path(weights).expanduser()


def shipped(name: str, network: str) -> tuple[Path, dict]:
    """Weights in the package: the .safetensors file and its record, once its sha256 has been checked.

    Returns:
        File, and record with at least network, name, classes (in their order) and sha256.
    Raises:
        DataError: If there are none of this name for the network (says which there are), or the file is not
            the one of the record.
    """
    stem = f"{network}-{name}"
    if stem not in _shipped_names():
        raise DataError(
            f"`weights`: {stem} does not ship. There are: {', '.join(_shipped_names()) or 'none'}"
        )
    file, record = SHIPPED / f"{stem}.safetensors", read_json(SHIPPED / f"{stem}.json")
    actual = sha256(file) if file.is_file() else "no such file"
    if actual != record["sha256"]:
        raise DataError(
            f"{file}: not the file of its record: sha256 must be {record['sha256']}. Received: {actual}"
        )
    return file, record


def check(weights: str, network: str) -> None:
    """Refuse, before anything starts, what `start` would refuse for its name, place or network.

    Args:
        weights: The setting; not for a run that is still to be made.
        network: The network that is to start from it.
    Raises:
        DataError: If there is nothing of this name; says what there is.
        ValueError: If it is of another network.
    """
    found = kind(weights)
    if found == "imagenet":
        imagenet.checkpoint(network)
    elif found == "shipped":
        shipped(weights, network)
    elif found == "run":
        folder = locate(weights)
        if not (folder / PROVENANCE).is_file():
            raise DataError(f"`weights`: {weights} is not the folder of a finished run: no {PROVENANCE}")
        check_network(folder, network)


def check_network(folder: Path, network: str) -> None:
    """Raise a ValueError if the run that lies in `folder` trained another network."""
    record = folder / "training.json"
    settings = (read_json(record).get("settings") or {}) if record.is_file() else {}
    found = settings.get("network", network)
    if found != network:
        raise ValueError(f"`weights` must be of a {network}. Received: {folder}, a {found}")


def identity(weights: str, network: str) -> str:
    """Text that changes when what `weights` names changes, for a key of all that a step depends on.

    Returns:
        `none`; the sha256 of the file, as far as it is known for `imagenet`; for a run the sha256 of its
        provenance.json, which holds those of its files.
    Raises:
        DataError: As `check` does.
    """
    found = kind(weights)
    if found == "none":
        return "none"
    if found == "imagenet":
        return imagenet.checkpoint(network)["sha256"]
    if found == "shipped":
        return shipped(weights, network)[1]["sha256"]
    if found == "file":
        return sha256(locate(weights))
    record = locate(weights) / PROVENANCE
    if not record.is_file():
        raise DataError(f"`weights`: {weights} is not the folder of a finished run: no {PROVENANCE}")
    return hashlib.sha256(record.read_bytes()).hexdigest()


def _shipped_names() -> dict[str, str]:
    """`<network>-<name>` -> name of each record; a network's name has no dash."""
    stems = sorted(path.stem for path in SHIPPED.glob("*-*.json"))
    return {stem: stem.split("-", 1)[1] for stem in stems}
