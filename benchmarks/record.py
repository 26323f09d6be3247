"""The table that all benchmarks append to."""

import csv
import os
import platform
import re
import subprocess
from pathlib import Path

RESULTS = Path(__file__).parent / "results.csv"
COLUMNS = ("name", "value", "unit", "against", "commit", "device", "machine")


def record(
    name: str, value: float, unit: str, against: str, device: str = "cpu", path: Path = RESULTS
) -> dict:
    """Append one measurement to `path` and print it.

    Args:
        name: What was measured, as an identifier that stays the same over the project's life.
        value: The number, kept to four significant digits.
        unit: Of the value ("x" for a ratio).
        against: What it is compared with, or measured on.
        device: "cpu" or "gpu".
    Returns:
        The row, with the commit that was measured ("-dirty" where files differed from it) and the machine.
    """
    if device not in ("cpu", "gpu"):
        raise ValueError(f"`device` must be 'cpu' or 'gpu'. Received: {device!r}")
    row = dict(zip(COLUMNS, (name, f"{value:.4g}", unit, against, commit(), device, machine()), strict=True))
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(", ".join(str(value) for value in row.values()))
    return row


def machine() -> str:
    """Processor and number of cores."""
    told = Path("/proc/cpuinfo")
    found = told.is_file() and re.search(r"model name\s*: (.+)", told.read_text(encoding="utf-8"))
    return f"{found[1] if found else platform.machine()}, {os.cpu_count()} cores"


def peak_mb() -> float:
    """Peak memory of this process."""
    # Linux only. getrusage would do elsewhere, but on Linux it starts from the peak of the parent process.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def commit() -> str:
    """Short name of the commit that the working tree stands on, or "none" outside of git.

    It ends in "-dirty" where another tracked file differs than the table itself, which grows meanwhile.
    """
    name = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":!results.csv")
    return f"{name}-dirty" if name and changed else name or "none"


def _git(*arguments: str) -> str:
    answer = subprocess.run(
        ["git", *arguments], cwd=RESULTS.parent, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()
