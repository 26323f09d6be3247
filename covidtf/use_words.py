"""What notebook 13 found, in plain words, with the numbers that it rests on."""

from collections.abc import Mapping

import pandas as pd

_SIDES = ("above 0", "below 0")


def words(tables: Mapping[str, pd.DataFrame]) -> str:
    """What the tables say in plain words, part by part, with the numbers that it rests on.

    Args:
        tables: By name, as notebook 13 makes them: areas, differences, points, values, calibration, curves,
            subgroups. Baselines are told only as what networks are held against.
    """
    lines = []
    for part, rows in tables["areas"].groupby("part", sort=False):
        own = {name: _of_part(table, part) for name, table in tables.items()}
        row = rows.iloc[0]
        counts = f"{row['n']} images of {row['patients']} patients, positive {row['positives']}"
        lines.append(f"{part}, judged on {row['split']}: {counts} of {row['positive_patients']}.")
        said = (_of_areas, _of_differences, _of_points, _of_values, _of_calibration, _of_curves, _of_groups)
        lines += [f"  {line}" for sentence in said for line in sentence(own)]
    return "\n".join(lines)


def _of_part(table: pd.DataFrame, part: str) -> pd.DataFrame:
    """Of the networks; of differences, which have no column `baseline`, all."""
    if table.empty:
        return table
    rows = table[table["part"] == part]
    return rows[~rows["baseline"].astype(bool)] if "baseline" in rows else rows


def _of_areas(tables: dict[str, pd.DataFrame]) -> list[str]:
    rows = tables["areas"]
    told = rows[rows["auroc"].notna()]
    if told.empty:
        return [f"AUROC {rows['note'].iloc[0]}." if len(rows) else "No network."]
    best = told.nlargest(1, "auroc")
    lines = [f"Highest AUROC: {best['network'].iloc[0]}, {_interval(best.iloc[0])}."]
    seeds = told[told["seeds"] > 1]
    if seeds.empty:
        return [*lines, "One seed of each network: what another would give cannot be told."]
    spread = seeds["highest"] - seeds["lowest"]
    return [*lines, f"Highest minus lowest seed, {len(seeds)} networks: {_ends(spread)}."]


def _of_differences(tables: dict[str, pd.DataFrame]) -> list[str]:
    if tables["differences"].empty:
        return ["Nothing can be compared."]
    lines = []
    for kind, rows in tables["differences"].groupby("kind", sort=False):
        sides = rows[["told_by_bootstrap", "told_by_delong"]].isin(_SIDES)
        both = rows["told_by_bootstrap"] == rows["told_by_delong"]
        above, below = ((both & (rows["told_by_delong"] == word)).sum() for word in _SIDES)
        name = f"{kind} ({rows['other'].iloc[0]})" if kind.startswith("over") else kind
        alone = (sides.sum(axis=1) == 1).sum()
        told = f"by both intervals above 0 in {above}, below 0 in {below}; by one alone in {alone}"
        corrected = f"p below 0.05 after Holm in {(rows['p_holm'] < 0.05).sum()}"
        lines.append(f"Differences {name}, {len(rows)}: {told}; {corrected}.")
    return lines


def _of_points(tables: dict[str, pd.DataFrame]) -> list[str]:
    rows = tables["points"]
    told = rows[rows["sensitivity"].notna()]
    if told.empty:
        return [f"Thresholds {rows['note'].iloc[0]}."] if len(rows) else []
    lines = [f"Positive patients on val: {told['val_positive_patients'].min():.0f}."]
    for rule, own in told.groupby("rule", sort=False):
        found = ", ".join(f"{name} {_ends(own[name])}" for name in ("sensitivity", "specificity"))
        lines.append(f"At the threshold by {rule}, {len(own)} networks and seeds: {found}.")
        if ">=" in rule:
            wanted = float(rule.partition(">=")[2])
            short = (own["sensitivity"] < wanted).sum(), (own["sensitivity_high"] < wanted).sum()
            lines.append(f"  Below the stated sensitivity: {short[0]}, with the whole interval: {short[1]}.")
    return lines


def _of_values(tables: dict[str, pd.DataFrame]) -> list[str]:
    told = tables["values"].dropna(subset=["ppv"]) if len(tables["values"]) else tables["values"]
    if told.empty:
        return []
    rows = told[told["prevalence"] == told["prevalence"].min()]
    return [
        f"At a prevalence of {100 * rows['prevalence'].iloc[0]:g} %, by any rule: PPV {_ends(rows['ppv'])}."
    ]


def _of_calibration(tables: dict[str, pd.DataFrame]) -> list[str]:
    lines = []
    for scores, rows in tables["calibration"].groupby("scores", sort=False):
        told = rows[rows["ece"].notna()]
        if told.empty:
            lines.append(f"Calibration of scores {scores} {rows['note'].iloc[0]}.")
            continue
        more = int((told["ece"] > told["if_calibrated_95"]).sum())
        chance = f"ECE is higher than chance explains (95 %) in {more}"
        lines.append(f"Of {len(told)} networks and seeds, scores {scores}: {chance}.")
        if scores == "scaled":
            lower, higher = (told["brier_change_high"] < 0).sum(), (told["brier_change_low"] > 0).sum()
            lines.append(f"  Scaling lowers the Brier score in {lower} and raises it in {higher}.")
    return lines


def _of_curves(tables: dict[str, pd.DataFrame]) -> list[str]:
    lines = []
    for name, rows in tables["curves"].groupby("network", sort=False) if len(tables["curves"]) else ():
        told = rows[rows["gain_low"] > 0]["threshold"]
        where = (
            "at no threshold"
            if told.empty
            else f"at {len(told)} of {len(rows)} thresholds, each by itself, between {_ends(told)}"
        )
        lines.append(f"{name}, scores {rows['scores'].iloc[0]}: more net benefit than all and none {where}.")
    return lines


def _of_groups(tables: dict[str, pd.DataFrame]) -> list[str]:
    lines = []
    for name, rows in tables["subgroups"].groupby("network", sort=False) if len(tables["subgroups"]) else ():
        own = rows[rows["n"] < rows["n"].max()]
        told = own[own["auroc_low"].notna()]
        chance = ((told["auroc_low"] <= 0.5) & (told["auroc_high"] >= 0.5)).sum()
        found = f"{len(own)} subgroups, AUROC with an interval in {len(told)}, which holds 0.5 in {chance}"
        lines.append(f"{name}: {found if len(own) else 'no known property divides these images'}.")
    return lines


def _ends(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low:.3f}" if f"{low:.3f}" == f"{high:.3f}" else f"{low:.3f} to {high:.3f}"


def _interval(row: pd.Series) -> str:
    told = f"{row['bootstrap_low']:.3f} to {row['bootstrap_high']:.3f}"
    return f"{row['auroc']:.3f} ({'no interval' if pd.isna(row['bootstrap_low']) else told})"
