"""Result tables as people read them: each number with its interval in one cell, and Markdown."""

import numpy as np
import pandas as pd

from covidtf.audit.thresholds import ANY, CLEAN, EXPECTED_ONES
from covidtf.files import DataError
from covidtf.metrics import evaluation
from covidtf.metrics.ablation import NAMES
from covidtf.metrics.grouping import BY

_OF_CLASS = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "PPV",
    "f1": "F1",
    "auroc": "AUROC",
}
_AT_THRESHOLD = ("sensitivity", "specificity")


def readable(results: pd.DataFrame) -> pd.DataFrame:
    """A results table with each metric and its interval in one cell.

    Args:
        results: Columns of `evaluation.comparison`, `network` and `start`, one row per run.
    Returns:
        Columns Network, Started from, Test images (patients), COVID-19, AUROC, Over best baseline (where
        `results` has the columns of `metrics.against`), Threshold, Sensitivity, Specificity; metrics as
        `value (low to high)`, 95 % CI by bootstrap over patients. A network whose gain over the best baseline
        has an interval that is not above 0 is marked "not above".
    """
    table = pd.DataFrame({"Network": results["network"], "Started from": results["start"]})
    table["Test images (patients)"] = counts(results)
    table["COVID-19"] = results["positives"]
    table["AUROC"] = cells(results, "auroc")
    # Tables of earlier versions do not have it.
    if "over_baseline" in results:
        table["Over best baseline"] = _over_baseline(results)
    table["Threshold"] = results["threshold"].map("{:.3f}".format)
    table["Sensitivity"] = cells(results, "sensitivity")
    table["Specificity"] = cells(results, "specificity")
    return table


def transfer(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `metrics.transfer.table` with each metric and its interval in one cell.

    Returns:
        Columns Part of test, Network, Started from, Trained, Seeds, Images (patients), AUROC, Lowest to
        highest seed, Gain over random weights, Over best baseline (where the table has it, as `readable`).
    """
    result = table[["part", "network", "start", "strategy", "seeds"]].set_axis(
        ["Part of test", "Network", "Started from", "Trained", "Seeds"], axis=1
    )
    result["Images (patients)"] = counts(table)
    result["AUROC"] = cells(table, "auroc")
    result["Lowest to highest seed"] = _range(table)
    result["Gain over random weights"] = _gains(table, "gain")
    # Tables of earlier versions do not have it.
    if "over_baseline" in table:
        result["Over best baseline"] = _over_baseline(table)
    return result


def ablation(table: pd.DataFrame, metric: str, level: str) -> pd.DataFrame:
    """Rows of `metrics.ablation.table` of one metric and level, each number with its interval in one cell.

    Args:
        table: By `metrics.grouping.differing`; as it is or read back from its CSV.
        metric: One of `metrics.ablation.METRICS`.
        level: "slice" or "case".
    Returns:
        Columns Part, Method, each of Started from, Label noise, Beta (other than 0) and further settings in
        which rows differ, Seeds, Slices or Cases (patients), of cases the Rule, the metric, Within folds (if
        there are folds and it is AUROC), Lowest to highest seed, Mean of the seeds' scores (if there are
        several), Gain over cross-entropy, Gain over random weights (if starts differ), Over best baseline
        (marked as in `readable`).
    Raises:
        DataError: If there is no such row.
    """
    rows = table[(table["metric"] == metric) & (table["level"] == level)]
    if rows.empty:
        found = sorted(set(zip(table["metric"], table["level"], strict=True)))
        raise DataError(f"ablation: rows of {(metric, level)} were wanted. Received: {found}")
    result = {"Part": rows["part"], "Method": rows["method"]} | _settings(rows) | {"Seeds": rows["seeds"]}
    result[f"{level.capitalize()}s (patients)"] = counts(rows)
    named = {"value": metric, "low": f"{metric}_low", "high": f"{metric}_high"}
    if level == "case":
        result["Rule (one per seed)"] = rows["rule"]
    result[f"{NAMES[metric]} (95 % CI)"] = cells(rows.rename(columns=named), metric)
    if rows["within_folds"].notna().any():
        result["Within folds"] = ["" if pd.isna(mean) else f"{mean:.3f}" for mean in rows["within_folds"]]
    result["Lowest to highest seed"] = _range(rows)
    if rows["ensemble"].notna().any():
        result["Mean of the seeds' scores (95 % CI)"] = cells(rows, "ensemble", untold="")
    result["Gain over cross-entropy (95 % CI)"] = _gains(rows, "gain")
    if "Started from" in result:
        result["Gain over random weights (95 % CI)"] = _gains(rows, "start_gain")
    # Tables of earlier versions do not have it.
    if "over_baseline" in rows:
        result["Over best baseline (95 % CI)"] = _over_baseline(rows)
    return pd.DataFrame(result).reset_index(drop=True)


def per_class(table: pd.DataFrame, level: str, part: str = "") -> pd.DataFrame:
    """Rows of `metrics.per_class.table` of one level, each number with its interval in one cell.

    Args:
        table: As it is or read back from its CSV.
        level: "slice" or "case".
        part: Of `metrics.judged.part`; "" takes all.
    Returns:
        Columns Part (if it is not given), Method, settings as of `ablation`, Seeds, of cases the Rule, Class,
        Slices or Cases (patients), and the metrics of `metrics.tallies` with 95 % CI.
    Raises:
        DataError: If there is no such row.
    """
    rows = table[(table["level"] == level) & (table["part"].isin([part]) if part else True)]
    if rows.empty:
        found = sorted(set(zip(table["part"], table["level"], strict=True)))
        raise DataError(f"classes: rows of {(part, level)} were wanted. Received: {found}")
    result = {} if part else {"Part": rows["part"]}
    result |= {"Method": rows["method"]} | _settings(rows) | {"Seeds": rows["seeds"]}
    result |= {"Rule (one per seed)": rows["rule"]} if level == "case" else {}
    result["Class"] = rows["class"]
    result[f"{level.capitalize()}s (patients)"] = counts(rows)
    for metric, name in _OF_CLASS.items():
        result[f"{name} (95 % CI)"] = cells(rows, metric)
    return pd.DataFrame(result).reset_index(drop=True)


def group_names(table: pd.DataFrame) -> list[str]:
    """What to call the rows of a comparison: the method, and of the settings those in which rows differ.

    >>> rows = {"method": ["full", "full"], "loss": "x", "beta": 0.9, "start": "s", "label_noise": 0}
    >>> group_names(pd.DataFrame(rows | {"fusion": ["main", "mean"], "seeds": 1}))
    ['full, fusion main', 'full, fusion mean']
    """
    columns = [
        [f"{heading.lower()} {word}" if word else "" for word in words]
        for heading, words in _settings(table).items()
    ]
    parts = zip(table["method"], *columns, strict=True)
    return [", ".join(filter(None, words)) for words in parts]


def recipe(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `audit.recipe.tried` or `networks` with each number and its interval in one cell.

    Returns:
        Columns Network (if there is one), Way, Measure, Images (patients), AUROC (95 % CI; of the fall within
        source the difference of two), Gain (95 % CI).
    """
    result = {"Network": table["network"]} if "network" in table else {}
    result |= {"Way": table["variant"], "Measure": table["measure"]}
    result["Images (patients)"] = counts(table)
    named = {"value": "auroc", "low": "auroc_low", "high": "auroc_high"}
    result["AUROC (95 % CI)"] = cells(table.rename(columns=named), "auroc")
    result["Gain (95 % CI)"] = _gains(table, "gain")
    return pd.DataFrame(result)


def detected(rates: pd.DataFrame) -> pd.DataFrame:
    """How often the audit found what was planted, from `audit.trials.rates`.

    Returns:
        Columns Planted, Must fail (one at least), Sets, Found, Share found (95 % CI); a condition a row, but
        for the one without anything planted.
    """
    rows = rates[rates["check"] == EXPECTED_ONES]
    own = rates[rates["expected"] & (rates["check"] != EXPECTED_ONES)].groupby("condition")["check"]
    return pd.DataFrame(
        {
            "Planted": rows["condition"],
            "Must fail (one at least)": rows["condition"].map(own.agg("; ".join)),
            "Sets": rows["seeds"],
            "Found": rows["failed"],
            "Share found (95 % CI)": _shares(rows),
        }
    ).reset_index(drop=True)


def false_alarms(rates: pd.DataFrame) -> pd.DataFrame:
    """How often each check failed where nothing was planted, from `audit.trials.rates`.

    Returns:
        Columns Check, Failed, Passed, Cannot be told (numbers of sets), Share failed (95 % CI); the last row
        is of any check, and "Passed" says nothing there. Checks that never could be told are left out, unless
        they are expected to fail where something is planted.
    """
    expected = set(rates.loc[rates["expected"], "check"])
    told = (rates["passed"] + rates["failed"] > 0) | rates["check"].isin(expected)
    rows = rates[(rates["condition"] == CLEAN) & told]
    result = rows[["check", "failed", "passed", "untold"]].set_axis(
        ["Check", "Failed", "Passed", "Cannot be told"], axis=1
    )
    result["Passed"] = result["Passed"].astype(object).mask(result["Check"] == ANY, "")
    return result.assign(**{"Share failed (95 % CI)": _shares(rows)}).reset_index(drop=True)


def evidence(table: pd.DataFrame) -> pd.DataFrame:
    """The table of notebook 07 over all images, each number with its interval in one cell.

    Args:
        table: Rows of `explain.evidence.row` with network, method and group, as it is or read back.
    Returns:
        Columns Network, Method, Images (patients), Without evidence (images left out), Evidence in the lungs,
        Area of the lungs, Difference, all three with 95 % CI.
    """
    rows = table[table["group"] == "all"]
    result = {"Network": rows["network"], "Method": rows["method"]}
    result["Images (patients)"] = counts(rows)
    result["Without evidence"] = rows["images_left_out"]
    result["Evidence in the lungs (95 % CI)"] = cells(rows, "share")
    result["Area of the lungs (95 % CI)"] = cells(rows, "area")
    result["Difference (95 % CI)"] = _gains(rows, "difference")
    return pd.DataFrame(result).reset_index(drop=True)


def beside_published(results: pd.DataFrame) -> pd.DataFrame:
    """The paper's comparison of its networks, and ours of the same networks beside it.

    The published numbers are of COVID-XRay-5K, v1 or v3, each with the letter of its certainty
    (`evaluation.published`); ours are of whatever data set `results` is of, and comparable only where that
    is the same.

    Args:
        results: As `readable` takes it; rows of networks that the paper does not have are left out.
    Returns:
        Columns Network, Started from, AUROC, Over best baseline (where known), Sensitivity, Specificity, and
        Published AUROC v1, AUROC v3, Sensitivity v3, Specificity v3.
    """
    table = readable(results).drop(columns=["Test images (patients)", "COVID-19", "Threshold"])
    published = evaluation.published()
    # SqueezeNet 1.0 or 1.1: the paper does not say which.
    names = results["network"].str.extract(r"^(ResNet\d+|SqueezeNet|DenseNet\d+)", expand=False)
    for quantity, version in (("auroc", "v1"), *((name, "v3") for name in ("auroc", *_AT_THRESHOLD))):
        rows = published[(published["quantity"] == quantity) & (published["version"] == version)]
        found = rows.drop_duplicates("network").set_index("network")
        text = {
            network: f"{row['value']:.3f}"
            + (f" ± {row['half_width']:.3f}" if row["half_width"] > 0 else "")
            + f" [{row['certainty']}]"
            for network, row in found.iterrows()
        }
        word = "AUROC" if quantity == "auroc" else quantity.capitalize()
        table[f"Published {word} {version}"] = names.map(text)
    return table[names.notna().to_numpy()].reset_index(drop=True)


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown, text as it is.

    >>> print(markdown(pd.DataFrame({"n": [2], "what": ["x"]})))
    | n | what |
    |---|---|
    | 2 | x |
    """
    rows = [list(table.columns), *table.astype(str).to_numpy().tolist()]
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(table.columns), *lines[1:]])


def cells(
    table: pd.DataFrame, name: str, limits: str = "", form: str = ".3f", untold: str = "cannot be told"
) -> list[str]:
    """A number and its interval in one cell.

    Args:
        table: With a column `name`, and the interval in `<limits>_low` and `<limits>_high`.
        name: Of the number.
        limits: Whose interval it is; by default `name`'s.
        form: Of the numbers.
        untold: What stands for a number that is NaN.
    """
    own = limits or name
    rows = table[[name, f"{own}_low", f"{own}_high"]].itertuples(index=False, name=None)
    return [untold if pd.isna(v) else f"{v:{form}} ({_limits(lo, hi, form)})" for v, lo, hi in rows]


def counts(table: pd.DataFrame) -> list[str]:
    """Images, or whatever `n` counts, and their patients in one cell."""
    return [f"{n} ({patients})" for n, patients in zip(table["n"], table["patients"], strict=True)]


def _shares(rates: pd.DataFrame) -> list[str]:
    named = rates.rename(columns={"low": "share_failed_low", "high": "share_failed_high"})
    return cells(named, "share_failed", form=".2f")


def _range(table: pd.DataFrame) -> list[str]:
    ends = table[["lowest", "highest"]].itertuples(index=False)
    return ["" if pd.isna(low) else f"{low:.3f} to {high:.3f}" for low, high in ends]


def _gains(table: pd.DataFrame, name: str) -> list[str]:
    return cells(table, name, form="+.3f", untold="")


def _over_baseline(results: pd.DataFrame) -> list[str]:
    """Empty for a baseline, whose `beats` is "", or NaN when it is read back."""
    words = {"yes": "", "no": ", not above", "cannot be told": ", cannot be told"}
    pairs = zip(_gains(results, "over_baseline"), results["beats"], strict=True)
    return [(cell + words.get(beats, "")).removeprefix(", ") for cell, beats in pairs]


def _limits(low: float, high: float, form: str) -> str:
    return "no interval" if pd.isna(low) else f"{low:{form}} to {high:{form}}"


def _settings(rows: pd.DataFrame) -> dict[str, list[str]]:
    """Columns of the settings in which the networks' rows differ and the method's name does not say it."""
    # Baselines have no loss.
    networks, result = rows[rows["loss"].notna()], {}
    others = [name for name in rows.loc[:, "method":"seeds"].columns[1:-1] if name not in (*BY, "rule")]
    for name in ("start", "label_noise", "beta", *others):
        values = networks[name] if name != "beta" else networks.loc[networks["beta"] > 0, "beta"]
        if len({_setting(name, value) for value in values}) > 1:
            heading = {"start": "Started from"}.get(name, name.replace("_", " ").capitalize())
            result[heading] = [_setting(name, value) for value in rows[name]]
    return result


def _setting(name: str, value: object) -> str:
    if pd.isna(value):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{100 * value:g} %" if name == "label_noise" else f"{value:g}"
