"""Headless commands: `python -m covidtf reproduce | publish | predict | export | docs`."""

import argparse
import sys
from pathlib import Path

from covidtf.config import ReportConfig
from covidtf.files import DataError


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 on success, 1 on bad parameters or data or a failed notebook, 2 on a bad command, 3 when `predict`
        rejected some files.
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
    reproduce.add_argument(
        "params", type=Path, metavar="PARAMS.yaml", help="such as notebooks/params/phantom-xray.yaml"
    )
    reproduce.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set it in each step that has it; may be repeated",
    )
    reproduce.add_argument("--out", help="working folder (default: runs)")
    reproduce.set_defaults(command=_reproduce)
    publish = commands.add_parser("publish", help="copy what may be committed into results/")
    publish.add_argument("folder", type=Path, metavar="runs/EXPERIMENT")
    publish.set_defaults(command=_publish)
    _add_predict(commands)
    export = commands.add_parser(
        "export", help="write a finished run's weights so that PyTorch reads them too"
    )
    export.add_argument("run", type=Path, metavar="RUN", help="run folder")
    export.add_argument("file", type=Path, metavar="FILE.safetensors", help="in torchvision's names")
    export.set_defaults(command=_export)
    docs = commands.add_parser("docs", help="write the numbers of results/ into README and cards")
    docs.set_defaults(command=_docs)
    return parser


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


def _reproduce(options: argparse.Namespace) -> int:
    # Imported here: papermill takes a second that `--help` and `docs` need not wait for.
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError

    from covidtf import report, reproduce

    out = str(Path(options.out).resolve()) if options.out else None
    try:
        configs = reproduce.run(options.params, dict(options.p), out)
    except PapermillExecutionError as error:
        print(
            f"covidtf: {error.ename}: {error.evalue}\n(see notebook.failed.ipynb in the folder above)",
            file=sys.stderr,
        )
        return 1
    except DeadKernelError:
        print("covidtf: the notebook's kernel died; often too little memory", file=sys.stderr)
        return 1
    if isinstance(configs[-1], ReportConfig):
        print(report.summary_text(configs[-1].experiment_folder))
    return 0


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
