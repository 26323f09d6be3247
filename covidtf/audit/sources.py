"""Sources: can they be told apart, and is the label still told within one, or in one that was left out?"""

from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from covidtf.audit import probe
from covidtf.audit.areas import Area, lost, within
from covidtf.audit.checks import CHECKS, judge
from covidtf.duplicates import duplicates, groups, links

# From features, manifest and labels to scores of val and test, as `probe.scores`.
Scores = Callable[[np.ndarray, pd.DataFrame, np.ndarray], pd.DataFrame]
_NAMED = 6  # sites that a reason names
_ONE = "all images are of this source"


def judged_split(table: pd.DataFrame) -> str:
    """The split that is judged: "test", or "val" where there is no test."""
    return "test" if "test" in set(table["split"]) else "val"


def sites(table: pd.DataFrame) -> pd.Series:
    """Where an image of covid-chestxray-dataset was published: the host of its URL; "" elsewhere."""
    hosts = links(table)["url"].map(lambda url: (urlsplit(url).hostname or "").removeprefix("www."))
    return hosts.rename("site")


def told_apart(
    features: np.ndarray,
    manifest: pd.DataFrame,
    draws: int = 2000,
    seed: int = 0,
    scores: Scores = probe.scores,
) -> list[dict]:
    """Within each label: how well the probe tells one source from the others.

    Args:
        features: Shape `(n, features)`, row i of the image of row i of `manifest`.
        manifest: With `split`.
        draws: Bootstrap draws of patients.
        seed: Of the draws, a non-negative integer.
        scores: What is trained and tested.
    Returns:
        Rows of `checks.judge`, on the judged split: one per label and source, of two sources the first alone.
    """
    check, split, rows = CHECKS["sources told apart"], judged_split(manifest), []
    for label in sorted(set(manifest["label"])):
        of_label = manifest[(manifest["label"] == label) & (manifest["parent_id"] == "")]
        counts = pd.crosstab(of_label["source"], of_label["split"]).reindex(
            columns=["train", split], fill_value=0
        )
        names = sorted(counts.index[(counts > 0).all(axis=1)])
        if len(names) < 2:
            reason = f"train and {split} share {len(names)} source of {label}"
            rows.append(judge(check, "data", None, reason, label))
            continue
        used = of_label[of_label["source"].isin(names) & of_label["split"].isin(["train", split])]
        place = manifest.index.get_indexer(used.index)
        table = scores(features[place], used.reset_index(drop=True), used["source"].to_numpy(str))
        for name in names[: 1 if len(names) == 2 else None]:
            area = within(table[table["split"] == split], None, name, draws, seed)
            others = names[1] if len(names) == 2 else "others"
            rows.append(judge(check, "data", area.metric, part=f"{label}: {name} against {others}"))
    return rows


def left_out(
    features: np.ndarray,
    manifest: pd.DataFrame,
    positive: str = "COVID-19",
    draws: int = 2000,
    seed: int = 0,
    scores: Scores = probe.scores,
) -> tuple[dict, pd.DataFrame]:
    """Train the probe without a source, test it on all originals of that source; for each in turn.

    Where no source with both labels leaves both labels behind, the sites of covid-chestxray-dataset take the
    place of sources: hosts of the images' URLs. Left out is also whatever train shares a patient, a picture
    or a URL with the held-out images. AUROC is pooled within the held-out places (`areas.within`), because
    scores of different probes cannot be compared.

    Args:
        features: As `told_apart`.
        manifest: As `told_apart`, with `url` where there is one.
        positive: Label to detect.
        draws: As `told_apart`.
        seed: As `told_apart`.
        scores: As `told_apart`.
    Returns:
        The row of `checks.judge`, and the scores of the held-out images with their `place` (empty where it
        cannot be told).
    """
    check = CHECKS["source left out"]
    used = manifest[(manifest["parent_id"] == "") & (manifest["split"] != "")]
    kind, places, names = _places(used, positive)
    if not names:
        reason = "no source or site has both labels and leaves both to train on"
        return judge(check, "data", None, reason), pd.DataFrame()
    group = groups(used, duplicates(used) if "phash" in used else _no_pairs())
    own, found = features[manifest.index.get_indexer(used.index)], []
    for name in names:
        held = places == name
        train = (used["split"] == "train") & ~group.isin(group[held])
        split = np.select([held, train], ["test", "train"], "")
        # Of several classes, one that only the held-out place has cannot be scored.
        known = train | (held & used["label"].isin(used.loc[train, "label"]))
        table = used.assign(split=split)[known]
        scored = scores(own[known.to_numpy()], table.reset_index(drop=True), table["label"].to_numpy(str))
        found.append(scored.assign(place=name))
    joined = pd.concat(found, ignore_index=True)
    area = within(joined, joined["place"], positive, draws, seed)
    return judge(check, "data", area.metric, _list(kind, names, places), f"by {kind}"), joined


def of_networks(
    tables: Mapping[str, pd.DataFrame],
    known: Iterable[str],
    positive: str = "COVID-19",
    draws: int = 2000,
    seed: int = 0,
) -> list[dict]:
    """Of each network: AUROC within each source, the fall from all sources to there, and in new sources.

    Args:
        tables: Rows of the judged split by network, of the same images.
        known: Sources that train has.
        positive: Label to detect.
        draws: As `told_apart`.
        seed: As `told_apart`.
    Returns:
        Rows of `checks.judge`; what no network can be asked is one row of "data". None without networks.
        Where all images are of one source, what is told within it cannot be told from what is told over all.
    """
    if not tables:
        return []
    rows, known = [], set(known)
    for name, table in tables.items():
        parts = _by_source(table, positive, draws, seed)
        whole = within(table, None, positive, draws, seed)
        if len(set(table["source"])) == 1:
            # Not to be told from the AUROC over all sources, so it would pass and say nothing of the source.
            rows += [judge(CHECKS["within source"], name, None, _ONE, source) for source in parts]
        else:
            rows += _inside(name, whole, parts)
        for source, area in parts.items():
            if source not in known:
                rows.append(judge(CHECKS["external source"], name, area.metric, part=source))
    answered = {row["check"] for row in rows}
    reasons = {
        "within source": "no source has both labels",
        "fall within source": "fewer than two sources, or none with both labels",
        "external source": "no source with both labels is absent from train",
    }
    others = [name for name in reasons if name not in answered]
    return rows + [judge(CHECKS[name], "data", None, reasons[name]) for name in others]


def _inside(name: str, whole: Area, parts: Mapping[str, Area]) -> list[dict]:
    rows = []
    for source, area in parts.items():
        fall = lost(whole, area)
        rows.append(judge(CHECKS["within source"], name, area.metric, part=source))
        rows.append(judge(CHECKS["fall within source"], name, fall, part=source, base=whole.metric))
    return rows


def _by_source(table: pd.DataFrame, positive: str, draws: int, seed: int) -> dict[str, Area]:
    """AUROC in each source that has both labels, in the draws of the whole table."""
    source = table["source"]
    areas = {
        name: within(table, source.where(source == name, ""), positive, draws, seed)
        for name in sorted(set(source))
    }
    return {name: area for name, area in areas.items() if area}


def _places(used: pd.DataFrame, positive: str) -> tuple[str, pd.Series, list[str]]:
    """Sources, or else sites, and the names of those that can be left out."""
    for kind, places in (("source", used["source"]), ("site", sites(used))):
        present = sorted(set(places) - {""})
        names = [name for name in present if _can_be_left_out(used, places == name, positive)]
        if names:
            return kind, places, names
    return "", places, []


def _can_be_left_out(used: pd.DataFrame, held: pd.Series, positive: str) -> bool:
    return _both(used[held], positive) and _both(used[~held & (used["split"] == "train")], positive)


def _both(table: pd.DataFrame, positive: str) -> bool:
    return (table["label"] == positive).nunique() == 2


def _list(kind: str, names: list[str], places: pd.Series) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    counts = ", ".join(f"{name} ({(places == name).sum()})" for name in names[:_NAMED])
    return f"{len(names)} {kind}{'s' if len(names) > 1 else ''} with both labels: {counts}{more}"


def _no_pairs() -> pd.DataFrame:
    return pd.DataFrame(columns=["image_id_a", "image_id_b"])
