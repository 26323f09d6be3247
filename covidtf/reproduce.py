"""Run an experiment: its notebooks in order through papermill, each only if what it depends on changed."""

import contextlib
import hashlib
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import nbformat
import papermill
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

from covidtf import html, runs
from covidtf.config import (
    ROOT,
    Config,
    CTConfig,
    DataConfig,
    SourceConfig,
    TrainConfig,
)
from covidtf.experiments import plan, shown
from covidtf.files import DataError, locked, read_json, write_json
from covidtf.weights import places

NOTEBOOKS = ROOT / "notebooks"
FIGURES = (".svg", ".pdf", ".png")
# No hash is like it, so that a step with this key is never taken for one that is up to date.
_UNKNOWN = "not known"
# Parameters that say where all steps work, so that they can be given for some of them too.
_SAME_FOR_ALL = {"experiment", "out", "smoke", "data_folder"}


def run(
    params: Path,
    overrides: dict[str, str],
    out: str | None = None,
    last: str | None = None,
    only: Sequence[str] = (),
) -> list[Config]:
    """Run or skip every step of an experiment; after a crash it goes on with the step that crashed.

    Args:
        params: As `plan`.
        overrides: As `plan`.
        out: As `plan`.
        last: As `plan`.
        only: Steps to run, whether or not anything changed, on what the others left behind as it lies there;
            a training that is finished is not done again. A later call without it runs them again, because
            what they read may not be of this code.
    Returns:
        The settings of the steps that were run or skipped, in order.
    Raises:
        DataError, ValueError: As `plan`; or a step of `only` is not in the plan, or lacks what it reads; or
            `overrides` set what no step of `only` has, or what steps have that it reads as they lie there.
        papermill.PapermillExecutionError: A notebook failed; its copy so far is `notebook.failed.ipynb`.
    """
    configs = plan(params, overrides, out, last)
    chosen = _chosen(params, configs, only, overrides) if only else configs
    os.environ["COVIDTF_COMMAND"] = _command(params, overrides, "audit" if last else "reproduce", only)
    for config in chosen:
        if _reads_public(config):
            # Raises before a folder is made.
            _ = config.source_folder
    with contextlib.ExitStack() as held:
        for folder in dict.fromkeys(config.experiment_folder for config in chosen):
            held.enter_context(locked(folder, "running an experiment"))
        if only:
            for config in chosen:
                print(f"only {config.step} -> {_place(config)}", flush=True)
                _execute(config, _UNKNOWN)
        else:
            _run_steps(configs)
    return chosen


def _chosen(
    params: Path, configs: list[Config], only: Sequence[str], overrides: dict[str, str]
) -> list[Config]:
    """The steps of these names, once all that they read is there and nothing is asked of the others."""
    known = list(dict.fromkeys(config.step for config in configs))
    unknown = sorted(set(only) - set(known))
    if unknown:
        raise ValueError(f"{params}: steps to run must be some of {known}. Received: {unknown}")
    chosen, read = [config for config in configs if config.step in only], []
    for place, config in enumerate(configs):
        earlier = [other for other in configs[:place] if config.step in only and other.step not in only]
        for other in earlier:
            if _needs(config, other):
                read.append(other)
                if not (other.folder / "step.json").is_file():
                    raise DataError(
                        f"{_place(other)}: {config.step} reads it, and it is not there or not finished. "
                        f"Run {params} without --only"
                    )
    own, of_others = ({item.name for config in part for item in fields(config)} for part in (chosen, read))
    wrong = sorted(name for name in overrides if name not in own or name in of_others - _SAME_FOR_ALL)
    if wrong:
        raise ValueError(
            f"{params}: parameters of {', '.join(only)} were wanted, and none that a step has which is read "
            f"and not run. Received: {wrong}"
        )
    return chosen


def _needs(config: Config, earlier: Config) -> bool:
    """Whether a step reads another: it names its folder, a run in it, or that kind of step."""
    words = {word for value in asdict(config).values() if isinstance(value, str) for word in value.split()}
    if {str(earlier.folder), shown(earlier.folder)} & words:
        return True
    if earlier.experiment != config.experiment:
        return False
    named = getattr(config, "run_ids", "*").split()
    if isinstance(earlier, TrainConfig) and named != ["*"]:
        return earlier.run_id in named
    return earlier.step in config.reads or any(word.startswith(f"{earlier.step}/") for word in named)


def _run_steps(configs: list[Config]) -> None:
    keys: dict[Path, tuple[str, str]] = {}
    for number, config in enumerate(configs, start=1):
        key = _key(config, [value for step, value in keys.values() if step in config.reads])
        label = f"[{number}/{len(configs)}] {config.step} -> {_place(config)}"
        if _is_done(config.folder, key):
            print(f"{label}: nothing changed, skipped", flush=True)
        else:
            print(label, flush=True)
            _execute(config, key)
        keys[config.folder] = (config.step, key)


def _place(config: Config) -> str | Path:
    return shown(config.folder) if config.folder.is_relative_to(ROOT) else config.folder


def _execute(config: Config, key: str) -> None:
    folder = config.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "step.json").unlink(missing_ok=True)
    started, made = time.time(), runs.origin()
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
    _drop_figures(folder, started)
    partial.replace(folder / "notebook.ipynb")
    if config.step in html.STEPS:
        html.write(config, made)
    write_json({"key": key, "outputs": dict(_sizes(folder))}, folder / "step.json")


def _drop_figures(folder: Path, started: float) -> None:
    """Remove figures that an earlier call of the notebook made and this one did not: they show other runs."""
    for path in folder.iterdir():
        if path.suffix in FIGURES and path.stat().st_mtime < started:
            path.unlink()


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
    if isinstance(config, TrainConfig):
        digest.update(places.identity(config.weights, config.network).encode())
    return digest.hexdigest()


def _reads_public(config: Config) -> bool:
    return (isinstance(config, SourceConfig) and config.source != "phantom") or (
        isinstance(config, DataConfig | CTConfig) and config.dataset != "phantom"
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


def _command(params: Path, overrides: dict[str, str], command: str, only: Sequence[str]) -> str:
    words = ["python", "-m", "covidtf", command, shown(params.resolve())]
    for name, text in overrides.items():
        words += ["-p", name, text if name not in ("out", "data_folder") else "..."]
    words += [word for step in only for word in ("--only", step)]
    return shlex.join(words)
