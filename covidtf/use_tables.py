"""The tables of notebook 13 as people read them: each number with its interval in one cell."""

import pandas as pd


def areas(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `metrics.paired.areas`: AUROC with both intervals, and the lowest and the highest seed."""
    result = _first(table)
    result["Seeds"] = table["seeds"]
    result["AUROC (bootstrap)"] = _cells(table, "auroc", "bootstrap")
    result["AUROC (DeLong)"] = _cells(table, "auroc", "delong")
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
    result["Images (patients)"] = _counts(table)
    result["Difference (bootstrap)"] = _cells(table, "difference", "bootstrap", "+.3f")
    result["Difference (DeLong)"] = _cells(table, "difference", "delong", "+.3f")
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
        result[name.capitalize()] = _cells(table, name)
    return result.assign(Note=table["note"])


def values(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `metrics.use.predictive_values`: one per operating point, PPV and NPV at each prevalence."""
    kept = ["part", "network", "seed", "rule"]
    cells = {
        f"{name.upper()} at {100 * prevalence:g} %": pd.Series(
            _cells(rows, name, form=".2f"), pd.MultiIndex.from_frame(rows[kept])
        )
        for name in ("ppv", "npv")
        for prevalence, rows in table.groupby("prevalence")
    }
    titles = {name: name.capitalize() for name in kept}
    return pd.DataFrame(cells).reset_index(names=kept).rename(columns=titles)


def calibration(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `metrics.use.calibration`, before and after scaling."""
    result = _first(table)
    result["Seed"], result["Scores"] = table["seed"], table["scores"]
    result["Temperature"] = [_range(words) for words in table["temperature"]]
    result["Brier"] = _cells(table, "brier")
    result["Change"] = [
        "" if pd.isna(value) else cell
        for value, cell in zip(table["brier_change"], _cells(table, "brier_change", form="+.3f"), strict=True)
    ]
    numbers = table[["ece", "if_calibrated", "if_calibrated_95"]].itertuples(index=False)
    result["ECE (if calibrated: mean, 95 % below)"] = [
        "cannot be told" if pd.isna(ece) else f"{ece:.3f} ({mean:.3f}, {most:.3f})"
        for ece, mean, most in numbers
    ]
    for name in ("slope", "intercept"):
        result[name.capitalize()] = _cells(table, name, form=".2f")
    return result.assign(Note=table["note"])


def _first(table: pd.DataFrame) -> pd.DataFrame:
    result = pd.DataFrame({"Part": table["part"], "Network": table["network"], "Split": table["split"]})
    result["Images (patients)"] = _counts(table)
    result["Positive"] = [
        f"{n} ({patients})"
        for n, patients in zip(table["positives"], table["positive_patients"], strict=True)
    ]
    return result


def _counts(table: pd.DataFrame) -> list[str]:
    return [f"{n} ({patients})" for n, patients in zip(table["n"], table["patients"], strict=True)]


def _cells(table: pd.DataFrame, name: str, limits: str = "", form: str = ".3f") -> list[str]:
    """Value with the interval in `<limits>_low` and `<limits>_high`, by default `name`'s own."""
    own = limits or name
    cells = table[[name, f"{own}_low", f"{own}_high"]].itertuples(index=False, name=None)
    return [_cell(*numbers, form) for numbers in cells]


def _cell(value: float, low: float, high: float, form: str) -> str:
    if pd.isna(value):
        return "cannot be told"
    interval = "no interval" if pd.isna(low) else f"{low:{form}} to {high:{form}}"
    return f"{value:{form}} ({interval})"


def _range(words: object) -> str:
    """Of the thresholds or temperatures of the folds the lowest and the highest."""
    found = [] if pd.isna(words) else [float(word) for word in str(words).split()]
    if not found:
        return ""
    lowest, highest = f"{min(found):.3f}", f"{max(found):.3f}"
    return lowest if len(found) == 1 else f"{lowest} to {highest}"
