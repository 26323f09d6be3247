"""The tables of notebook 13 as people read them: each number with its interval in one cell."""

import pandas as pd

from covidtf.tables import cells, counts


def areas(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `metrics.paired.areas`: AUROC with both intervals, and the lowest and the highest seed."""
    result = _first(table)
    result["Seeds"] = table["seeds"]
    result["AUROC (bootstrap)"] = cells(table, "auroc", "bootstrap")
    result["AUROC (DeLong)"] = cells(table, "auroc", "delong")
    ends = table[["lowest", "highest", "seeds"]].itertuples(index=False)
    result["Lowest to highest seed"] = [
        f"{low:.3f} to {high:.3f}" if seeds > 1 else "" for low, high, seeds in ends
    ]
    if table["within_folds"].notna().any():
        result["Within folds"] = table["within_folds"].map("{:.3f}".format).replace("nan", "")
    return result.assign(Note=table["note"])


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `metrics.paired.differences`, with p as it is and corrected by Holm."""
    result = pd.DataFrame({"Part": table["part"], "Network": table["one"], "Minus": table["other"]})
    result["Images (patients)"] = counts(table)
    result["Difference (bootstrap)"] = cells(table, "difference", "bootstrap", "+.3f")
    result["Difference (DeLong)"] = cells(table, "difference", "delong", "+.3f")
    for name, title in (("p", "p (DeLong)"), ("p_holm", "p (Holm)")):
        result[title] = ["cannot be told" if pd.isna(p) else f"{p:.3f}" for p in table[name]]
    return result


def points(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `metrics.use.operating_points`: chosen on val, judged on test."""
    result = _first(table)
    result["Seed"], result["Rule"] = table["seed"], table["rule"]
    result["Threshold"] = [_range(words) for words in table["threshold"]]
    on_val = table[["val_sensitivity", "val_specificity"]].itertuples(index=False)
    result["On val: sensitivity, specificity"] = [
        "" if pd.isna(found) else f"{found:.3f}, {missed:.3f}" for found, missed in on_val
    ]
    for name in ("sensitivity", "specificity"):
        result[name.capitalize()] = cells(table, name)
    return result.assign(Note=table["note"])


def values(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `metrics.use.predictive_values`: one per operating point, PPV and NPV at each prevalence."""
    kept = ["part", "network", "seed", "rule"]
    columns = {
        f"{name.upper()} at {100 * prevalence:g} %": pd.Series(
            cells(rows, name, form=".2f"), pd.MultiIndex.from_frame(rows[kept])
        )
        for name in ("ppv", "npv")
        for prevalence, rows in table.groupby("prevalence")
    }
    titles = {name: name.capitalize() for name in kept}
    return pd.DataFrame(columns).reset_index(names=kept).rename(columns=titles)


def calibration(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `metrics.use.calibration`, before and after scaling."""
    result = _first(table)
    result["Seed"], result["Scores"] = table["seed"], table["scores"]
    result["Temperature"] = [_range(words) for words in table["temperature"]]
    result["Brier"] = cells(table, "brier")
    result["Change"] = cells(table, "brier_change", form="+.3f", untold="")
    numbers = table[["ece", "if_calibrated", "if_calibrated_95"]].itertuples(index=False)
    result["ECE (if calibrated: mean, 95 % below)"] = [
        "cannot be told" if pd.isna(ece) else f"{ece:.3f} ({mean:.3f}, {most:.3f})"
        for ece, mean, most in numbers
    ]
    for name in ("slope", "intercept"):
        result[name.capitalize()] = cells(table, name, form=".2f")
    return result.assign(Note=table["note"])


def _first(table: pd.DataFrame) -> pd.DataFrame:
    result = pd.DataFrame({"Part": table["part"], "Network": table["network"], "Split": table["split"]})
    result["Images (patients)"] = counts(table)
    result["Positive"] = [
        f"{n} ({patients})"
        for n, patients in zip(table["positives"], table["positive_patients"], strict=True)
    ]
    return result


def _range(words: object) -> str:
    """Of the thresholds or temperatures of the folds the lowest and the highest."""
    found = [] if pd.isna(words) else [float(word) for word in str(words).split()]
    if not found:
        return ""
    lowest, highest = f"{min(found):.3f}", f"{max(found):.3f}"
    return lowest if len(found) == 1 else f"{lowest} to {highest}"
