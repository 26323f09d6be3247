"""COVID-XRay-5K from its sources: v3 rebuilt file by file, v1 sampled as its description says."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from covidtf import manifest
from covidtf.files import DataError, git_blob_sha1, progress, write_csv
from covidtf.sources import COVID_COLUMNS, covid_path, covid_row
from covidtf.sources.chexpert import CHEXPERT_COLUMNS, chexpert_name, chexpert_release, chexpert_row
from covidtf.sources.metadata import CHEXPERT, COVID_CHESTXRAY, RejectedError, is_outside, read_rows
from covidtf.sources.released import patient_ids, published_counts, published_files
from covidtf.sources.sampled import apply_list, sample_v1, save_list

__all__ = [
    "apply_list",
    "join_metadata",
    "published_counts",
    "published_files",
    "rebuild_v3",
    "sample_v1",
    "save_list",
]
JOINED = ("view", "sex", "age", "url", "licence")


def rebuild_v3(
    covid_dir: str | Path,
    chexpert_dir: str | Path,
    missing: str = "stop",
    report_file: str | Path | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """COVID-XRay-5K v3 from its sources, file by file as published, each checked by its git blob sha1.

    Split, label and patient are the published list's. Finding, view, sex, age, URL and licence come from
    `metadata.csv` and `train.csv` where these are there and have the row; otherwise a COVID-19 image has the
    finding "COVID-19", another none.

    Args:
        covid_dir: Clone of covid-chestxray-dataset (`images/` in it).
        chexpert_dir: CheXpert's small release, `CheXpert-v1.0-small`, or its parent.
        missing: "stop" raises an error unless every file is there unaltered; "go on" keeps those that are.
        report_file: CSV to write the report to, before an error about files is raised, which then names it.
    Returns:
        The manifest; and the report, one row per published file: image_id, source, path, split, label, state
        (present, absent, altered, outside: behind a link out of the folder, and not read), wanted and
        received (sha1), metadata ("joined", "none", "other label" where the source's table now says so, or
        why its row cannot be used).
    Raises:
        DataError: A file is not as published and `missing` is "stop", or none is.
        ValueError: `missing` is neither.
    Reference: Minaee et al., Medical Image Analysis 65:101794, 2020.
    """
    if missing not in ("stop", "go on"):
        raise ValueError(f'`missing` must be "stop" or "go on". Received: {missing!r}')
    roots = {COVID_CHESTXRAY: Path(covid_dir), CHEXPERT: Path(chexpert_dir)}
    listed = _checked(roots)
    kept = listed["state"] == "present"
    joined = _join(listed, roots)
    columns = ["image_id", "source", "path", "split", "label", "state", "wanted", "received"]
    report = listed[columns].assign(metadata=joined.pop("metadata"))
    written = f". The state of every file is in {write_csv(report, report_file)}" if report_file else ""
    if not kept.all() and (missing == "stop" or not kept.any()):
        raise DataError(_summary(listed) + written)
    rows = joined[kept]
    texts = rows.columns.drop("age", errors="ignore")
    return manifest.make(rows.assign(**rows[texts].fillna("")), "COVID-XRay-5K v3"), report


def join_metadata(table: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """What `metadata.csv` of covid-chestxray-dataset says of the released archive, by file name.

    Args:
        table: Manifest of `read_covid_xray_5k`.
        path: The `metadata.csv`.
    Returns:
        Copy of `table` with view, sex, age, url and licence of the images of that source, and of their
        augmented copies, whose file name is in a usable row; its first row counts.
    Raises:
        DataError: As `read_covid_chestxray`.
    """
    known = {}
    for _, fields in read_rows(Path(path), Path(path).parent, COVID_COLUMNS)[0]:
        row = _described(fields, covid_row)
        if row["metadata"] == "joined":
            known.setdefault(fields["filename"], {column: row[column] for column in JOINED})
    originals = table["parent_id"].where(table["parent_id"] != "", table["image_id"])
    names = originals.str.rpartition("/")[2]
    found = (table["source"] == COVID_CHESTXRAY) & names.isin(known)
    result = table.copy()
    for column in JOINED:
        result.loc[found, column] = [known[name][column] for name in names[found]]
    return result


def _checked(roots: dict[str, Path]) -> pd.DataFrame:
    """The published list with `file`, its path below its source's folder, its `state` and `received` sha1."""
    listed = published_files().rename(columns={"git_blob_sha1": "wanted"})
    listed["file"] = _places(listed, roots)
    files = progress(
        zip(listed["source"], listed["file"], listed["wanted"], strict=True), "checking", len(listed)
    )
    states = [_check(roots[source], path, wanted) for source, path, wanted in files]
    listed[["state", "received"]] = pd.DataFrame(states, index=listed.index)
    return listed


def _places(listed: pd.DataFrame, roots: dict[str, Path]) -> pd.Series:
    """Path of each file below its source's folder, which may be the parent of the release."""
    for source, root in roots.items():
        if not root.is_dir():
            raise DataError(f"{root}: no such folder; {source} was wanted")
    release = chexpert_release(roots[CHEXPERT])
    prefix = "" if release == roots[CHEXPERT] else f"{release.name}/"
    return listed["path"].where(listed["source"] != CHEXPERT, prefix + listed["path"])


def _check(root: Path, path: str, wanted: str) -> tuple[str, str]:
    file = root / path
    if is_outside(file, root):
        return "outside", ""
    if not file.is_file():
        return "absent", ""
    received = git_blob_sha1(file)
    return "present" if received == wanted else "altered", received


def _summary(listed: pd.DataFrame) -> str:
    counts = listed["state"].value_counts()
    text = f"COVID-XRay-5K v3: {len(listed)} files were wanted. Received: {counts.get('present', 0)} of them"
    for state in ("absent", "altered", "outside"):
        rows = listed[listed["state"] == state]
        if len(rows):
            text += f"; {len(rows)} {state}, the first {rows['image_id'].iloc[0]}"
    if ((listed["state"] == "altered") & (listed["source"] == CHEXPERT)).any():
        text += ". The list is of CheXpert-v1.0-small; the full release's files have other bytes"
    return text + '. missing="go on" keeps the files that are as published'


def _join(listed: pd.DataFrame, roots: dict[str, Path]) -> pd.DataFrame:
    """Manifest columns of every listed file, and in `metadata` what its source's table says of it."""
    known = _details(set(listed["image_id"]), roots)
    rows = []
    for file in listed.itertuples():
        row = {
            "finding": "" if file.source == CHEXPERT else file.label,
            "view": "UNKNOWN",
            "metadata": "none",
            **known.get(file.image_id, {}),
        }
        if row.pop("label", file.label) != file.label:
            row["metadata"] = "other label"
        published = {key: getattr(file, key) for key in ("image_id", "source", "split", "label")}
        patient = patient_ids(file.source, file.patient_id, file.path)
        rows.append({**row, **published, **patient, "path": file.file})
    return pd.DataFrame(rows, index=listed.index)


def _details(wanted: set[str], roots: dict[str, Path]) -> dict[str, dict]:
    """What the sources' tables, where they are there, say of the `wanted` images, by image_id."""
    release = chexpert_release(roots[CHEXPERT])
    tables = (
        (COVID_CHESTXRAY, roots[COVID_CHESTXRAY] / "metadata.csv", COVID_COLUMNS, covid_path, covid_row),
        (CHEXPERT, release / "train.csv", CHEXPERT_COLUMNS, _chexpert_path, chexpert_row),
    )
    details = {}
    for source, table, columns, locate, describe in tables:
        rows = read_rows(table, roots[source], columns)[0] if table.is_file() else []
        for _, fields in rows:
            image_id = f"{source}/{locate(fields)}"
            if image_id in wanted and image_id not in details:
                details[image_id] = _described(fields, describe)
    return details


def _chexpert_path(fields: dict[str, str]) -> str:
    return chexpert_name(fields["Path"])


def _described(fields: dict[str, str], describe: Callable[[dict[str, str]], dict]) -> dict:
    try:
        return {**describe(fields), "metadata": "joined"}
    except RejectedError as error:
        return {"metadata": str(error)}
