"""Result tables where people read them: in notebooks, at the end of a run, in README and cards."""

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from covidtf.audit import checks
from covidtf.config import ROOT
from covidtf.files import DataError, atomic, read_json
from covidtf.metrics import evaluation
from covidtf.tables import (
    ablation,
    beside_published,
    detected,
    evidence,
    false_alarms,
    group_names,
    markdown,
    per_class,
    readable,
    recipe,
    transfer,
)

__all__ = [
    "ablation",
    "beside_published",
    "detected",
    "evidence",
    "false_alarms",
    "group_names",
    "markdown",
    "per_class",
    "readable",
    "recipe",
    "summary_text",
    "transfer",
    "update_documents",
]
DOCUMENTS = ("README.md", "REPRODUCING.md", "MODEL_CARD.md", "DATA_CARD.md")
RESULTS = ROOT / "results"
_BLOCK = re.compile(r"(<!-- from: (?P<key>[^>]+?) -->)(?P<body>.*?)(<!-- end -->)", re.DOTALL)


def summary_text(experiment_folder: Path) -> str:
    """What `reproduce` prints last: the table of results and where the figures are.

    Raises:
        DataError: If the experiment has no report.
    """
    folder = experiment_folder / "10_ablation"
    if folder.is_dir():
        table = _read(folder / "ablation.csv")
        shown = ablation(table, "auroc", table["level"].iloc[-1])
        judged = f"{' and '.join(sorted(set(table['split'])))} split"
    else:
        folder, judged = experiment_folder / "06_report", "test split, threshold chosen on val"
        shown = readable(_read(folder / "results.csv"))
    figures = "\n".join(f"  {path}" for path in sorted(folder.glob("*.png")))
    return (
        f"\n{experiment_folder.name}: {judged}, 95 % CI by bootstrap over patients"
        f"\n\n{markdown(shown)}\n\nFigures:\n{figures}\nTables and the executed notebook: {folder}"
    )


def update_documents(check: bool = False) -> list[Path]:
    """Fill every `<!-- from: KEY -->...<!-- end -->` of the documents from the files under results/.

    Keys: `results EXPERIMENT`, `within SOURCE of EXPERIMENT`, `transfer EXPERIMENT`,
    `ablation EXPERIMENT METRIC LEVEL`, `classes EXPERIMENT LEVEL PART` (with _ for spaces),
    `beside-published EXPERIMENT`, `recipe EXPERIMENT probe|networks`,
    `verdicts EXPERIMENT` (also with `data`, those of no network), `verdict-counts EXPERIMENT`,
    `trial EXPERIMENT detected|false-alarms`, `evidence EXPERIMENT`, `csv PATH`, `benchmarks`,
    `benchmark NAME`, `benchmark START*` (the largest of several), `shipped NETWORK-NAME METRIC`,
    `test RUN-FOLDER METRIC`, `value EXPERIMENT NETWORK COLUMN` and `published NETWORK VERSION QUANTITY`,
    both with dashes for blanks in the network.

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


def _ablation(experiment: str, metric: str, level: str) -> str:
    table = _read(RESULTS / experiment / "10_ablation" / "ablation.csv")
    return f"\n{markdown(ablation(table, metric, level))}\n"


def _per_class(experiment: str, level: str, part: str) -> str:
    table = _read(RESULTS / experiment / "10_ablation" / "classes.csv")
    return f"\n{markdown(per_class(table, level, part.replace('_', ' ')))}\n"


def _recipe(experiment: str, name: str) -> str:
    return f"\n{markdown(recipe(_read(RESULTS / experiment / '12_recipe' / f'{name}.csv')))}\n"


def _checked(experiment: str) -> pd.DataFrame:
    return checks.read(RESULTS / experiment / "08_audit" / "checks.csv")


def _verdicts(experiment: str, subject: str = "") -> str:
    table = _checked(experiment)
    if subject:
        table = table[table["subject"] == subject]
    if table.empty:
        raise DataError(f"no verdict on {subject!r}")
    return f"\n{markdown(checks.readable(table))}\n"


def _verdict_counts(experiment: str) -> str:
    return checks.words(_checked(experiment))


def _trial(experiment: str, name: str) -> str:
    shown = {"detected": detected, "false-alarms": false_alarms}[name]
    return f"\n{markdown(shown(_read(RESULTS / experiment / '11_audit_trial' / 'rates.csv')))}\n"


def _evidence(experiment: str) -> str:
    return f"\n{markdown(evidence(_read(RESULTS / experiment / '07_heat_maps' / 'evidence.csv')))}\n"


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
    "ablation": _ablation,
    "classes": _per_class,
    "recipe": _recipe,
    "evidence": _evidence,
    "verdicts": _verdicts,
    "verdict-counts": _verdict_counts,
    "trial": _trial,
    "csv": _csv,
    "value": _value,
    "published": _published,
    "benchmark": _benchmark,
    "benchmarks": _benchmarks,
    "shipped": _shipped,
    "test": _test,
}


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"{path}: no such table; run notebook {path.parent.name[:2]}")
    return pd.read_csv(path)
