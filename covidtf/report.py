"""Result tables as people read them: in notebooks, at the end of a run, in README and cards."""

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from covidtf.config import ROOT
from covidtf.files import DataError, atomic, read_json
from covidtf.metrics import evaluation

DOCUMENTS = ("README.md", "REPRODUCING.md", "MODEL_CARD.md", "DATA_CARD.md")
RESULTS = ROOT / "results"
_AT_THRESHOLD = ("sensitivity", "specificity")
_BLOCK = re.compile(r"(<!-- from: (?P<key>[^>]+?) -->)(?P<body>.*?)(<!-- end -->)", re.DOTALL)


def readable(results: pd.DataFrame) -> pd.DataFrame:
    """A results table with each metric and its interval in one cell.

    Args:
        results: Columns of `evaluation.comparison`, `network` and `start`, one row per run.
    Returns:
        Columns Network, Started from, Test images (patients), COVID-19, AUROC, Threshold, Sensitivity,
        Specificity; metrics as `value (low to high)`, 95 % CI by bootstrap over patients.
    """
    table = pd.DataFrame({"Network": results["network"], "Started from": results["start"]})
    table["Test images (patients)"] = [
        f"{n} ({p})" for n, p in zip(results["n"], results["patients"], strict=True)
    ]
    table["COVID-19"] = results["positives"]
    table["AUROC"] = _with_interval(results, "auroc")
    table["Threshold"] = results["threshold"].map("{:.3f}".format)
    table["Sensitivity"] = _with_interval(results, "sensitivity")
    table["Specificity"] = _with_interval(results, "specificity")
    return table


def transfer(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `metrics.transfer.table` with each metric and its interval in one cell.

    Returns:
        Columns Part of test, Network, Started from, Trained, Seeds, Images (patients), AUROC, Lowest to
        highest seed, Gain over random weights.
    """
    result = table[["part", "network", "start", "strategy", "seeds"]].set_axis(
        ["Part of test", "Network", "Started from", "Trained", "Seeds"], axis=1
    )
    result["Images (patients)"] = [f"{n} ({p})" for n, p in zip(table["n"], table["patients"], strict=True)]
    result["AUROC"] = _with_interval(table, "auroc")
    result["Lowest to highest seed"] = [
        f"{low:.3f} to {high:.3f}" for low, high in zip(table["lowest"], table["highest"], strict=True)
    ]
    gains = table[["gain", "gain_low", "gain_high"]].itertuples(index=False)
    result["Gain over random weights"] = [
        "" if pd.isna(gain) else f"{gain:+.3f} ({low:+.3f} to {high:+.3f})" for gain, low, high in gains
    ]
    return result


def beside_published(results: pd.DataFrame) -> pd.DataFrame:
    """The paper's comparison of its networks, and ours of the same networks beside it.

    The published numbers are of COVID-XRay-5K, v1 or v3, each with the letter of its certainty
    (`evaluation.published`); ours are of whatever data set `results` is of, and comparable only where that
    is the same.

    Args:
        results: As `readable` takes it; rows of networks that the paper does not have are left out.
    Returns:
        Columns Network, Started from, AUROC, Sensitivity, Specificity, and Published AUROC v1, AUROC v3,
        Sensitivity v3, Specificity v3.
    """
    table = readable(results)[["Network", "Started from", "AUROC", "Sensitivity", "Specificity"]]
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


def summary_text(experiment_folder: Path) -> str:
    """What `reproduce` prints last: the table of results and where the figures are.

    Raises:
        DataError: If the experiment has no report.
    """
    folder = experiment_folder / "06_report"
    table = readable(_read(folder / "results.csv"))
    figures = "\n".join(f"  {path}" for path in sorted(folder.glob("*.png")))
    return (
        f"\n{experiment_folder.name}: test split, threshold chosen on val, 95 % CI by bootstrap over patients"
        f"\n\n{markdown(table)}\n\nFigures:\n{figures}\nTables and the executed notebook: {folder}"
    )


def update_documents(check: bool = False) -> list[Path]:
    """Fill every `<!-- from: KEY -->...<!-- end -->` of the documents from the files under results/.

    Keys: `results EXPERIMENT`, `within SOURCE of EXPERIMENT`, `transfer EXPERIMENT`,
    `beside-published EXPERIMENT`, `csv PATH`, `benchmarks`, `benchmark NAME`, `benchmark START*` (the largest
    of several), `shipped NETWORK-NAME METRIC`, `test RUN-FOLDER METRIC`,
    `value EXPERIMENT NETWORK COLUMN` and `published NETWORK VERSION QUANTITY`, both with dashes for blanks
    in the network.

    Args:
        check: Write nothing, only tell.
    Returns:
        Documents that differ from the files.
    Raises:
        DataError: An unknown key, or one whose file is absent; names the document.
    """
    changed = []
    for path in (ROOT / name for name in DOCUMENTS):
        before = path.read_text(encoding="utf-8")
        after = _BLOCK.sub(lambda match, path=path: _filled(match, path), before)
        if after != before:
            changed.append(path)
            if not check:
                with atomic(path) as temporary:
                    temporary.write_text(after, encoding="utf-8")
    return changed


def _filled(match: re.Match, path: Path) -> str:
    name, *words = match["key"].split()
    if name not in _KEYS:
        raise DataError(
            f"{path.name}: a key must start with one of {sorted(_KEYS)}. Received: {match['key']!r}"
        )
    try:
        text = _KEYS[name](*words)
    except (DataError, OSError, KeyError, TypeError) as error:
        raise DataError(f"{path.name}: {match['key']!r} cannot be filled: {error}") from error
    return f"{match[1]}{text}{match[4]}"


def _results(experiment: str) -> str:
    return f"\n{markdown(readable(_read(RESULTS / experiment / '06_report' / 'results.csv')))}\n"


def _beside_published(experiment: str) -> str:
    table = beside_published(_read(RESULTS / experiment / "06_report" / "results.csv"))
    return f"\n{markdown(table)}\n"


def _within(source: str, _of: str, experiment: str) -> str:
    table = _read(RESULTS / experiment / "06_report" / "within_source.csv")
    rows = readable(table[table["source"] == source])
    if rows.empty:
        raise DataError(f"no source {source!r}. Received: {sorted(set(table['source']))}")
    return f"\n{markdown(rows)}\n"


def _transfer(experiment: str) -> str:
    return f"\n{markdown(transfer(_read(RESULTS / experiment / '09_transfer' / 'transfer.csv')))}\n"


def _csv(path: str) -> str:
    return f"\n{markdown(pd.read_csv(ROOT / path, dtype=str, keep_default_na=False))}\n"


def _value(experiment: str, network: str, column: str) -> str:
    table = _read(RESULTS / experiment / "06_report" / "results.csv")
    rows = table[table["network"].str.replace(" ", "-") == network]
    if len(rows) != 1:
        raise DataError(f"one run of {network!r} was wanted. Received: {table['network'].tolist()}")
    value = rows[column].iloc[0]
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _published(network: str, version: str, quantity: str) -> str:
    table = evaluation.published()
    same = (table["version"] == version) & (table["quantity"] == quantity)
    rows = table[same & (table["network"].str.replace(" ", "-") == network)]
    if len(rows) != 1:
        raise DataError(f"one published number was wanted. Received: {len(rows)}")
    return f"{rows['value'].iloc[0]:.3f} [{rows['certainty'].iloc[0]}]"


def _benchmark(name: str) -> str:
    """The latest measurement of this name; `NAME*` is the largest of the latest of all that start so."""
    table = pd.read_csv(ROOT / "benchmarks" / "results.csv").drop_duplicates("name", keep="last")
    wanted = table["name"].str.startswith(name[:-1]) if name.endswith("*") else table["name"] == name
    if not wanted.any():
        raise DataError(f"no benchmark {name!r}. Received: {sorted(set(table['name']))}")
    return f"{table.loc[wanted, 'value'].max():.3g}"


def _shipped(stem: str, metric: str) -> str:
    record = read_json(ROOT / "covidtf" / "weights" / "shipped" / f"{stem}.json")
    return evaluation.text(record["test"][metric])


def _test(folder: str, metric: str) -> str:
    return evaluation.text(read_json(ROOT / folder / "metrics.json")["test"][metric])


def _benchmarks() -> str:
    """The latest measurement of each name."""
    table = pd.read_csv(ROOT / "benchmarks" / "results.csv", dtype=str).drop_duplicates("name", keep="last")
    table["value"] = table["value"] + " " + table["unit"].replace("x", "times")
    return f"\n{markdown(table[['name', 'value', 'against', 'device', 'commit']])}\n"


_KEYS: dict[str, Callable[..., str]] = {
    "results": _results,
    "within": _within,
    "beside-published": _beside_published,
    "transfer": _transfer,
    "csv": _csv,
    "value": _value,
    "published": _published,
    "benchmark": _benchmark,
    "benchmarks": _benchmarks,
    "shipped": _shipped,
    "test": _test,
}


def _with_interval(results: pd.DataFrame, name: str) -> list[str]:
    cells = results[[name, f"{name}_low", f"{name}_high"]].itertuples(index=False)
    return ["cannot be told" if pd.isna(v) else f"{v:.3f} ({lo:.3f} to {hi:.3f})" for v, lo, hi in cells]


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"{path}: no such table; run notebook 06")
    return pd.read_csv(path)
