"""Run an experiment: its notebooks in order through papermill, each only if what it depends on changed."""

import contextlib
import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import Field, asdict, fields
from pathlib import Path

import nbformat
import papermill
import yaml
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

from covidtf.config import CONFIGS, ROOT, Config, DataConfig, ReportConfig, SourceConfig, TrainConfig
from covidtf.files import DataError, locked, read_json, write_json

NOTEBOOKS = ROOT / "notebooks"
BASELINE = "01_xray_dataset/baseline-mean-std"


def plan(params: Path, overrides: dict[str, str], out: str | None = None) -> list[Config]:
    """The experiment's steps as checked settings; nothing has been started when this fails.

    Args:
        params: YAML file with `experiment`, optional `parameters` for all steps that know them, and `steps`,
            a list of notebooks with their own parameters.
        overrides: Name -> value as typed on the command line, read as YAML and set in every step that has
            such a parameter.
        out: Working folder in place of the default.
    Returns:
        One settings object per step, in order.
    Raises:
        DataError: Not an experiment file, or a notebook that does not exist.
        ValueError: An unknown or wrongly typed parameter; says which are known.
    """
    experiment = _read_experiment(params)
    shared = {"experiment": experiment["experiment"], **experiment["parameters"]}
    shared |= {name: _value(name, text) for name, text in overrides.items()}
    if out is not None:
        shared["out"] = out
    steps = [_step(params, item) for item in experiment["steps"]]
    known = {item.name for kind, _ in steps for item in fields(kind)}
    unknown = sorted(set(shared) - known)
    if unknown:
        raise ValueError(f"{params}: no step has parameters {unknown}. Known are {sorted(known)}")
    configs = _fill_report([_configure(params, kind, own, shared) for kind, own in steps])
    _check_weights(configs)
    return configs


def run(params: Path, overrides: dict[str, str], out: str | None = None) -> list[Config]:
    """Run or skip every step of an experiment; after a crash it goes on with the step that crashed.

    Returns:
        The settings of all steps, in order.
    Raises:
        DataError, ValueError: As `plan`.
        papermill.PapermillExecutionError: A notebook failed; its copy so far is `notebook.failed.ipynb`.
    """
    configs = plan(params, overrides, out)
    os.environ["COVIDTF_COMMAND"] = _command(params, overrides)
    for config in configs:
        if _reads_public(config):
            # Raises before a folder is made.
            _ = config.source_folder
    with locked(configs[0].experiment_folder, "running an experiment"):
        _run_steps(configs)
    return configs


def _run_steps(configs: list[Config]) -> None:
    keys: dict[Path, tuple[str, str]] = {}
    for number, config in enumerate(configs, start=1):
        key = _key(config, [value for step, value in keys.values() if step in config.reads])
        label = f"[{number}/{len(configs)}] {config.step} -> {_shown(config.folder)}"
        if _is_done(config.folder, key):
            print(f"{label}: nothing changed, skipped", flush=True)
        else:
            print(label, flush=True)
            _execute(config, key)
        keys[config.folder] = (config.step, key)


def _execute(config: Config, key: str) -> None:
    folder = config.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "step.json").unlink(missing_ok=True)
    partial = folder / "notebook.failed.ipynb"
    papermill.execute_notebook(
        str(NOTEBOOKS / f"{config.step}.ipynb"),
        str(partial),
        parameters=asdict(config),
        cwd=str(NOTEBOOKS),
        kernel_name="python3",
        language="python",
        stderr_file=sys.stderr,
        # The kernel warns that it talks over TCP, which on one machine is of no interest.
        extra_arguments=["--IPKernelApp.log_level=40"],
    )
    _tidy(partial)
    partial.replace(folder / "notebook.ipynb")
    write_json({"key": key, "outputs": dict(_sizes(folder))}, folder / "step.json")


def _tidy(path: Path) -> None:
    """Let a progress bar stand in an executed notebook once, as it ended, not once per step."""
    notebook, _ = CoalesceStreamsPreprocessor().preprocess(nbformat.read(path, as_version=4), {})
    nbformat.write(notebook, path)


def _is_done(folder: Path, key: str) -> bool:
    if not (folder / "step.json").is_file():
        return False
    record = read_json(folder / "step.json")
    return record["key"] == key and record["outputs"] == dict(_sizes(folder))


def _key(config: Config, upstream: list[str]) -> str:
    """Sha256 of all a step depends on: settings, notebook, package, earlier steps, the user's data folder."""
    digest = hashlib.sha256(config.digest().encode())
    package = (
        path for ending in ("py", "csv", "mplstyle") for path in (ROOT / "covidtf").rglob(f"*.{ending}")
    )
    for path in [NOTEBOOKS / f"{config.step}.ipynb", *sorted(package)]:
        digest.update(path.read_bytes())
    digest.update(json.dumps(upstream).encode())
    if _reads_public(config):
        digest.update(json.dumps(list(_stamps(config.source_folder))).encode())
    for name in ("file_list", "target"):
        if getattr(config, name, ""):
            path = ROOT / Path(getattr(config, name)).expanduser()
            digest.update((path if name == "file_list" else path / "manifest.csv").read_bytes())
    if isinstance(config, TrainConfig) and config.weights != "none":
        digest.update(config.weights_record.read_bytes())
    return digest.hexdigest()


def _reads_public(config: Config) -> bool:
    return isinstance(config, SourceConfig) or (
        isinstance(config, DataConfig) and config.dataset != "phantom"
    )


def _sizes(folder: Path) -> Iterator[tuple[str, int]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in ("step.json", ".lock"):
            yield str(path.relative_to(folder)), path.stat().st_size


def _stamps(folder: Path) -> Iterator[tuple[str, int, int]]:
    for source in sorted(folder.iterdir()):
        # A source may be a link to where the user keeps it; links further down are not followed.
        for top, _, names in os.walk(source):
            for name in sorted(names):
                status = Path(top, name).lstat()
                yield str(Path(top, name).relative_to(folder)), status.st_size, status.st_mtime_ns


def _read_experiment(params: Path) -> dict:
    if not params.is_file():
        known = sorted(_shown(path) for path in (ROOT / "notebooks" / "params").glob("*.yaml"))
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


def _step(params: Path, item: object) -> tuple[type[Config], dict]:
    name, own = next(iter(item.items())) if isinstance(item, dict) and len(item) == 1 else (item, {})
    if not isinstance(name, str) or name not in CONFIGS:
        raise DataError(f"{params}: a step must be one of {sorted(CONFIGS)}. Received: {name!r}")
    if not isinstance(own or {}, dict):
        raise DataError(f"{params}: {name} must have parameters by name. Received: {own!r}")
    return CONFIGS[name], dict(own or {})


def _value(name: str, text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"`{name}` cannot be read as YAML. Received: {text!r}") from error


def _configure(params: Path, kind: type[Config], own: dict, shared: dict) -> Config:
    names = {item.name for item in fields(kind)}
    unknown = sorted(set(own) - names)
    if unknown:
        raise ValueError(f"{params}: {kind.step} has no parameters {unknown}. Known are {sorted(names)}")
    values = own | {name: value for name, value in shared.items() if name in names}
    return kind(
        **{item.name: _number(item, values[item.name]) for item in fields(kind) if item.name in values}
    )


def _number(item: Field, value: object) -> object:
    """`1e-4` is text to YAML, which wants `1.0e-4`; notebooks and people write the former."""
    if item.type is float and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def _check_weights(configs: list[Config]) -> None:
    made = {config.folder for config in configs}
    for config in configs:
        named = isinstance(config, TrainConfig) and config.weights != "none"
        if named and config.weights_record.parent not in made and not config.weights_record.is_file():
            raise DataError(f"`weights`: {config.weights} is not the folder of a finished run")


def _fill_report(configs: list[Config]) -> list[Config]:
    """Let a report over all runs read those of this very plan, not what earlier settings left behind."""
    trained = [config.run_id for config in configs if isinstance(config, TrainConfig)]
    trained += [BASELINE] if any(isinstance(config, DataConfig) for config in configs) else []
    return [
        type(config)(**asdict(config) | {"run_ids": " ".join(dict.fromkeys(trained))})
        if isinstance(config, ReportConfig) and config.run_ids == "*" and trained
        else config
        for config in configs
    ]


def _command(params: Path, overrides: dict[str, str]) -> str:
    words = ["python", "-m", "covidtf", "reproduce", _shown(params.resolve())]
    for name, text in overrides.items():
        words += ["-p", name, text if name not in ("out", "data_folder") else "..."]
    return shlex.join(words)


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
