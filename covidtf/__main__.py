"""Headless commands: `python -m covidtf reproduce | audit | publish | predict | grid | export | docs`."""

import argparse
import sys
from pathlib import Path

from covidtf.config import AblationConfig, AuditConfig, Config, ReportConfig
from covidtf.files import DataError


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 on success, 1 on bad parameters or data or a failed notebook, 2 on a bad command, 3 when `predict`
        rejected some files, 4 when a check of `audit` failed.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except (DataError, ValueError, OSError, ImportError) as error:
        print(f"covidtf: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m covidtf", description=__doc__)
    commands = parser.add_subparsers(required=True)
    reproduce = commands.add_parser("reproduce", help="run an experiment's notebooks in order")
    _add_experiment(reproduce)
    reproduce.set_defaults(command=_reproduce, last=None)
    audit = commands.add_parser(
        "audit",
        help="run an experiment's notebooks and its audit",
        epilog="Exit status: 0 if no check failed, 1 on an error, 4 if one failed. A check that cannot be "
        "told has not failed. With --only of other steps no check is read.",
    )
    _add_experiment(audit)
    audit.set_defaults(command=_audit, last=AuditConfig.step)
    publish = commands.add_parser("publish", help="copy what may be committed into results/")
    publish.add_argument("folder", type=Path, metavar="runs/EXPERIMENT")
    publish.set_defaults(command=_publish)
    _add_predict(commands)
    _add_grid(commands)
    export = commands.add_parser(
        "export", help="write a finished run's weights so that PyTorch reads them too"
    )
    export.add_argument("run", type=Path, metavar="RUN", help="run folder")
    export.add_argument("file", type=Path, metavar="FILE.safetensors", help="in torchvision's names")
    export.set_defaults(command=_export)
    docs = commands.add_parser("docs", help="write the numbers of results/ into README and cards")
    docs.set_defaults(command=_docs)
    return parser


def _add_experiment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "params", type=Path, metavar="PARAMS.yaml", help="such as notebooks/params/phantom-xray.yaml"
    )
    parser.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set it in each step that has it; may be repeated",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="STEP",
        help="run this step alone, such as 06_report, on what the others left behind; may be repeated",
    )
    parser.add_argument("--out", help="working folder (default: runs)")


def _add_predict(commands) -> None:
    predict = commands.add_parser(
        "predict",
        help="score image files with a finished run's network",
        description="Score image files with a finished run's network. Research software, not a medical "
        "device.",
        epilog="Exit status: 0 if all files were scored, 1 on an error, 3 if files were rejected; these are "
        "listed with their reason beside the scores. Rows are written as they are computed, to OUT.partial.",
    )
    predict.add_argument("run", type=Path, metavar="RUN", help="run folder, such as runs/EXPERIMENT/RUN_ID")
    predict.add_argument(
        "inputs", type=Path, nargs="+", metavar="PATH", help="image file, or folder with image files below it"
    )
    predict.add_argument("--out", type=Path, required=True, metavar="scores.csv")
    predict.add_argument(
        "--engine", choices=("keras", "openvino"), default="keras", help="what runs the network [%(default)s]"
    )
    predict.add_argument("--batch", type=int, default=32, metavar="N", help="images at once [%(default)s]")
    predict.set_defaults(command=_predict)


def _add_grid(commands) -> None:
    grid = commands.add_parser(
        "grid",
        help="cross-validate the last layer of frozen networks over seeds and learning rates",
        description="Train the last layer of frozen networks for each seed, fold (by patient, of train and "
        "val together) and learning rate; test is left alone. Each backbone sees each image once.",
    )
    grid.add_argument(
        "data", type=Path, metavar="DATA", help="finished data step, such as runs/EXPERIMENT/03_augmentation"
    )
    grid.add_argument("--out", type=Path, required=True, metavar="grid.csv")
    grid.add_argument("--networks", nargs="+", default=["SqueezeNet1_0"], metavar="NETWORK")
    grid.add_argument("--weights", default="none", help="what all start from [%(default)s]")
    grid.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    grid.add_argument("--folds", type=int, default=5)
    grid.add_argument("--rates", type=float, nargs="+", default=[1e-4, 1e-3, 1e-2])
    grid.add_argument("--epochs", type=int, default=100)
    grid.set_defaults(command=_grid)


def _reproduce(options: argparse.Namespace) -> int:
    from covidtf import report

    configs = _run(options)
    reports = [config for config in configs if isinstance(config, ReportConfig | AblationConfig)]
    if reports:
        print(report.summary_text(reports[-1].experiment_folder))
    if configs and (page := configs[-1].folder / "report.html").is_file():
        print(f"The last notebook's page: {page}")
    return 0 if configs else 1


def _audit(options: argparse.Namespace) -> int:
    from covidtf.audit import checks
    from covidtf.tables import markdown

    configs = _run(options)
    if not configs:
        return 1
    audits = [config for config in configs if isinstance(config, AuditConfig)]
    if not audits:
        # Only other steps were asked for.
        return 0
    folder = audits[0].folder
    verdicts = checks.read(folder / "checks.csv")
    print(f"\n{markdown(checks.readable(verdicts))}\n\n{checks.words(verdicts)}")
    print(f"Tables, figures and the executed notebook: {folder}")
    return 4 if (verdicts["verdict"] == "failed").any() else 0


def _run(options: argparse.Namespace) -> list[Config]:
    """Settings of the steps that were run; none if a notebook failed, which has been said."""
    # Imported here: papermill takes a second that `--help` and `docs` need not wait for.
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError

    from covidtf import reproduce

    out = str(Path(options.out).resolve()) if options.out else None
    try:
        return reproduce.run(options.params, dict(options.p), out, options.last, options.only)
    except PapermillExecutionError as error:
        print(
            f"covidtf: {error.ename}: {error.evalue}\n(see notebook.failed.ipynb in the folder above)",
            file=sys.stderr,
        )
    except DeadKernelError:
        print("covidtf: the notebook's kernel died; often too little memory", file=sys.stderr)
    return []


def _publish(options: argparse.Namespace) -> int:
    from covidtf import config, publication

    written = publication.publish(options.folder, config.ROOT / "results" / options.folder.resolve().name)
    print(f"{len(written)} files under results/{options.folder.resolve().name}")
    return 0


def _predict(options: argparse.Namespace) -> int:
    from covidtf import scoring

    scored, rejected = scoring.score(options.run, options.inputs, options.out, options.engine, options.batch)
    print(f"{scored} files scored: {options.out}")
    if rejected:
        print(f"{rejected} files rejected: {scoring.rejected_path(options.out)}", file=sys.stderr)
    return 3 if rejected else 0


def _grid(options: argparse.Namespace) -> int:
    from covidtf import datasets, files
    from covidtf.training import batches, grid, networks
    from covidtf.weights import start

    prepared = datasets.load(options.data)
    data, (size, channels) = batches.read(prepared), prepared.images.shape[2:]
    models = [networks.build(name, len(data.classes), channels, size) for name in options.networks]
    started = {model.name: start(model, options.weights, data.classes)["weights"] for model in models}
    shared = options.seeds, options.folds, options.rates, options.epochs
    table = grid.grid(models, data, options.data.parent / "features", *shared)
    files.write_csv(table.assign(weights_sha256=table["network"].map(started)), options.out)
    means = table.groupby(["network", "learning_rate"])["val_auroc"].agg(["mean", "min", "max"]).round(3)
    print(f"AUROC on val over {options.folds} folds and {len(options.seeds)} seeds:\n{means.to_string()}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from covidtf.weights import exports

    print(exports.export_run(options.run, options.file))
    return 0


def _docs(options: argparse.Namespace) -> int:
    from covidtf import report

    for path in report.update_documents():
        print(f"updated {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
