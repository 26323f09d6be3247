"""ImageNet's weights as torchvision publishes them: which file, its hash, and the way from there to here."""

import csv
import http.client
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from covidtf.files import DataError, atomic, sha256

TABLE = Path(__file__).parents[1] / "published" / "imagenet_checkpoints.csv"
_SECONDS = 30
_CHUNK = 1 << 20


def checkpoint(network: str) -> dict[str, str]:
    """Row of `published/imagenet_checkpoints.csv`.

    Returns:
        network, weights (torchvision's name), url, file, sha256 (64 hex digits; or the first 8, which is what
        torchvision publishes and `torch.hub` checks, where no public source has the others), sha256_from,
        bytes (empty if not known), top1_accuracy on ImageNet's val, licence.
    Raises:
        ValueError: If there is none for the network.
    """
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = {row["network"]: row for row in csv.DictReader(file)}
    if network not in rows:
        raise ValueError(f"`imagenet` weights exist for {list(rows)}. Received: {network!r}")
    return rows[network]


def cache_folder() -> Path:
    """`covidtf` in Keras' folder, which is `~/.keras` or what the environment variable KERAS_HOME says."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "covidtf"


def path(network: str) -> Path:
    """The checkpoint of a network in the cache folder, downloaded unless it is there, its hash checked.

    Raises:
        ValueError: If there is none for the network.
        DataError: If it cannot be downloaded (the message says what to download and where to put it), or is
            not the file that the table names; nothing is kept then of what was downloaded.
    """
    row = checkpoint(network)
    target = cache_folder() / row["file"]
    if target.is_file():
        _check(target, target, row)
        return target
    with atomic(target) as temporary:
        with temporary.open("wb") as file:
            for chunk in _download(row, target):
                file.write(chunk)
        _check(temporary, row["url"], row)
    return target


def _download(row: dict[str, str], target: Path) -> Iterator[bytes]:
    # Errors of writing are not for here: a full disk is no lack of a network.
    try:
        with urllib.request.urlopen(row["url"], timeout=_SECONDS) as response:
            total = int(response.headers.get("Content-Length") or row["bytes"] or 0) or None
            with tqdm(total=total, desc=row["file"], unit="B", unit_scale=True) as bar:
                while chunk := response.read(_CHUNK):
                    bar.update(len(chunk))
                    yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"{row['url']}: cannot be downloaded ({error}). Download it where there is a network and put it "
            f"to {target}; or start from other `weights`"
        ) from error


def _check(file: Path, name: str | Path, row: dict[str, str]) -> None:
    actual, wanted = sha256(file), row["sha256"]
    if not actual.startswith(wanted):
        digits = "" if len(wanted) == 64 else f" (its first {len(wanted)} digits are known)"
        raise DataError(
            f"{name}: not torchvision's {row['file']}: sha256 must be {wanted}{digits}. Received: {actual}. "
            "It is not used; remove it if it lies in the cache"
        )
