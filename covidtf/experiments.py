"""Experiment files: from a YAML file and the command line to checked settings of every step."""

import contextlib
import difflib
import itertools
import re
from collections.abc import Iterable
from dataclasses import Field, asdict, fields
from pathlib import Path

import yaml

from covidtf.config import (
    CONFIGS,
    ROOT,
    AblationConfig,
    AuditConfig,
    Config,
    CTConfig,
    DataConfig,
    HeatMapConfig,
    ReportConfig,
    SourceConfig,
    TrainConfig,
    TransferConfig,
    UseConfig,
)
from covidtf.files import DataError
from covidtf.metrics.baselines import BASELINES
from covidtf.weights import places


def plan(
    params: Path, overrides: dict[str, str], out: str | None = None, last: str | None = None
) -> list[Config]:
    """The experiment's steps as checked settings; nothing has been started when this fails.

    Args:
        params: YAML file with `experiment`, optional `parameters` for all steps that know them, and `steps`,
            a list of notebooks with their own parameters, which win over those for all. A list of values
            makes one step of each (of several lists, of each combination); `as: NAME` names a step, whose
            folder is `$NAME` in later ones.
        overrides: Name -> value as typed on the command line, read as YAML and set in every step that has
            such a parameter.
        out: Working folder in place of the default.
        last: A step that is added at the end where the file does not have it.
    Returns:
        One settings object per step, in order.
    Raises:
        DataError: Not an experiment file, or a notebook that does not exist.
        ValueError: An unknown or wrongly typed parameter; says which are known.
    """
    experiment = _read_experiment(params)
    shared = {"experiment": experiment["experiment"], **experiment["parameters"]}
    typed = {name: _value(name, text) for name, text in overrides.items()}
    typed |= {} if out is None else {"out": out}
    steps = [step for item in experiment["steps"] for step in _steps(params, item)]
    if last is not None and all(kind.step != last for kind, _ in steps):
        steps.append((CONFIGS[last], {}))
    known = {item.name for kind, _ in steps for item in fields(kind)}
    unknown = sorted({*shared, *typed} - known)
    if unknown:
        raise ValueError(f"{params}: no step has parameters {unknown}.{_meant(unknown, known)}")
    configs, named = [], {}
    for kind, own in steps:
        configs.append(_configure(params, kind, shared, _resolved(params, own, named), typed))
        named |= {own["as"]: configs[-1].folder} if "as" in own else {}
    configs = _fill_report(configs)
    _check_weights(configs)
    return configs


def _read_experiment(params: Path) -> dict:
    if not params.is_file():
        known = sorted(shown(path) for path in (ROOT / "notebooks" / "params").glob("*.yaml"))
        raise DataError(f"{params}: no such file. Experiments are {', '.join(known)}")
    try:
        experiment = yaml.safe_load(params.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{params}: not an experiment file: {error}") from error
    if not isinstance(experiment, dict) or not {"experiment", "steps"} <= set(experiment):
        raise DataError(f"{params}: `experiment` and `steps` are wanted. Received: {experiment!r:.200}")
    extra = set(experiment) - {"experiment", "steps", "parameters"}
    if extra:
        raise DataError(f"{params}: unknown entries {sorted(extra)}")
    experiment = {"parameters": {}, **experiment}
    for entry, kind in (("parameters", dict), ("steps", list)):
        if not isinstance(experiment[entry], kind) or (kind is list and not experiment[entry]):
            raise DataError(f"{params}: `{entry}` must be a {kind.__name__}. Received: {experiment[entry]!r}")
    return experiment


def _steps(params: Path, item: object) -> list[tuple[type[Config], dict]]:
    name, own = next(iter(item.items())) if isinstance(item, dict) and len(item) == 1 else (item, {})
    if not isinstance(name, str) or name not in CONFIGS:
        raise DataError(f"{params}: a step must be one of {sorted(CONFIGS)}. Received: {name!r}")
    if not isinstance(own or {}, dict):
        raise DataError(f"{params}: {name} must have parameters by name. Received: {own!r}")
    values = [value if isinstance(value, list) else [value] for value in (own or {}).values()]
    return [
        (CONFIGS[name], dict(zip(own or {}, combination, strict=True)))
        for combination in itertools.product(*values)
    ]


def _resolved(params: Path, own: dict, named: dict[str, Path]) -> dict:
    """Parameters of a step; a word `$NAME` in a text is the folder of the earlier step of that name."""
    result = {name: value for name, value in own.items() if name != "as"}
    for name, value in result.items():
        if isinstance(value, str) and re.search(r"(^|\s)\$", value):
            result[name] = " ".join(_folder(params, word, named) for word in value.split())
    return result


def _folder(params: Path, word: str, named: dict[str, Path]) -> str:
    if not word.startswith("$"):
        return word
    if word[1:] not in named:
        raise DataError(f"{params}: no earlier step is called {word[1:]!r}. Known are {list(named)}")
    folder = named[word[1:]]
    return shown(folder) if folder.is_relative_to(ROOT) else str(folder)


def _value(name: str, text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"`{name}` cannot be read as YAML. Received: {text!r}") from error


def _configure(params: Path, kind: type[Config], shared: dict, own: dict, typed: dict) -> Config:
    """A step's settings: what is typed wins over its own, and that over what all steps share."""
    items = {item.name: item for item in fields(kind)}
    unknown = sorted(set(own) - set(items))
    if unknown:
        raise ValueError(f"{params}: {kind.step} has no parameters {unknown}.{_meant(unknown, items)}")
    values = shared | own | typed
    try:
        return kind(**{name: _number(item, values[name]) for name, item in items.items() if name in values})
    except (ValueError, DataError) as error:
        raise type(error)(f"{params}: {kind.step}: {str(error).removeprefix(f'{kind.step}: ')}") from error


def _meant(unknown: list[str], known: Iterable[str]) -> str:
    near = [name for word in unknown for name in difflib.get_close_matches(word, known, n=1)]
    return f"{f' Did you mean {near}?' if near else ''} Known are {sorted(known)}"


def _number(item: Field, value: object) -> object:
    """`1e-4` is text to YAML, which wants `1.0e-4`; notebooks and people write the former."""
    if item.type is float and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def _check_weights(configs: list[Config]) -> None:
    made = {config.folder for config in configs}
    for config in configs:
        if isinstance(config, TrainConfig) and places.locate(config.weights) not in made:
            places.check(config.weights, config.network)


def _fill_report(configs: list[Config]) -> list[Config]:
    """Let a report over all runs read those of this very plan, not what earlier settings left behind."""
    reports = ReportConfig | TransferConfig | AblationConfig | AuditConfig | HeatMapConfig | UseConfig
    return [
        type(config)(**asdict(config) | {"run_ids": runs})
        if isinstance(config, reports) and config.run_ids == "*" and (runs := _runs(configs, config))
        else config
        for config in configs
    ]


def _runs(configs: list[Config], report: Config) -> str:
    """Run folders of the report's experiment, separated by spaces, those of baselines last.

    Audit and heat maps are of the data set's own split, so runs of folds are nothing to them.
    """
    own = [config for config in configs if config.experiment == report.experiment]
    folds = not isinstance(report, AuditConfig | HeatMapConfig)
    trained = [
        config.run_id
        for config in own
        if isinstance(config, TrainConfig)
        and config.data != SourceConfig.step
        and (folds or not getattr(config, "folds", 0))
    ]
    trained += [baseline for config in own for baseline in _baselines(config, folds)]
    return " ".join(dict.fromkeys(trained))


def _baselines(config: Config, folds: bool) -> list[str]:
    """Run folders that a data step makes, below the experiment's; those of folds if they are wanted."""
    if not isinstance(config, DataConfig | CTConfig):
        return []
    parts = ["", *(f"-fold{index}" for index in range(folds * getattr(config, "folds", 0)))]
    return [f"{config.step}/baseline-{slug}{part}" for part in parts for slug in BASELINES]


def shown(path: Path) -> str:
    """A path from the repository's root, or its name alone where it is outside."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
