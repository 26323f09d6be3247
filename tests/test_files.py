"""Files are written whole or not at all, hashed as the file lists were, and read with clear errors."""

import errno
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from covidtf import files

FULL_DISK = """
import resource, sys
from covidtf.files import atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with atomic(sys.argv[1]) as temporary:
        temporary.write_bytes(bytes(100_000))
except OSError as error:
    print(error)
"""


def test_atomic_writes_and_makes_the_folder(tmp_path):
    """The file appears under its name with its content, in a new folder, readable by others."""
    path = tmp_path / "new" / "a.txt"
    with files.atomic(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


def test_atomic_keeps_the_old_file_on_an_error(tmp_path):
    """An error in the block leaves what was there and no temporary file, and is not swallowed."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="halfway"), files.atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("halfway")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_atomic_on_a_full_disk_names_the_file(tmp_path):
    """A write that the system refuses ends in an error with the file's name and leaves nothing behind."""
    path = tmp_path / "a.bin"
    done = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=True)
    assert os.strerror(errno.EFBIG) in done.stdout
    assert str(path) in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == []


def test_atomic_refuses_a_folder_that_is_a_file(tmp_path):
    """A folder that cannot be made is the system's own error, with the name in it."""
    (tmp_path / "a").write_text("")
    with pytest.raises(OSError, match="/a'"), files.atomic(tmp_path / "a" / "b.txt"):
        pass


def test_csv_keeps_what_float32_holds(tmp_path):
    """A float32 that is written and read again is the same number; lines end alike everywhere."""
    values = np.random.default_rng(0).random(1000, dtype=np.float32)
    path = files.write_csv(pd.DataFrame({"score": values.astype(float)}), tmp_path / "a.csv")
    assert np.array_equal(pd.read_csv(path)["score"].to_numpy(np.float32), values)
    assert b"\r" not in path.read_bytes()


def test_json_round_trip_does_not_depend_on_key_order(tmp_path):
    """Equal objects give equal bytes, and are read back equal."""
    first = files.write_json({"b": 1, "a": [0.1, "ü"]}, tmp_path / "1.json")
    second = files.write_json({"a": [0.1, "ü"], "b": 1}, tmp_path / "2.json")
    assert first.read_bytes() == second.read_bytes()
    assert files.read_json(first) == {"a": [0.1, "ü"], "b": 1}


def test_json_refuses_nan_and_leaves_no_file(tmp_path):
    """NaN is no JSON: the error comes before anything is written under the name."""
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json({"auroc": float("nan")}, tmp_path / "a.json")
    assert [file.name for file in tmp_path.iterdir()] == []


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"[1]", b'"text"'])
def test_read_json_names_the_file(tmp_path, content):
    """What is not a JSON object is an error with the file's name."""
    path = tmp_path / "settings.json"
    path.write_bytes(content)
    with pytest.raises(files.DataError, match=r"settings\.json: (not JSON|a JSON object)"):
        files.read_json(path)


@pytest.mark.parametrize(
    ("content", "sha1"),
    [
        (b"", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
        (b"hello\n", "ce013625030ba8dba906f756967f9e9ca394464a"),
    ],
)
def test_git_blob_sha1_is_gits(tmp_path, content, sha1):
    """The sha1 equals what `git hash-object` prints for the same bytes."""
    path = tmp_path / "a"
    path.write_bytes(content)
    assert files.git_blob_sha1(path) == sha1


def test_sha256_of_a_file_larger_than_a_buffer(tmp_path):
    """A file that is read in several pieces has the digest of its whole."""
    content = np.random.default_rng(0).bytes(3_000_001)
    (tmp_path / "a").write_bytes(content)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_progress_hands_on_every_item_and_nothing_on_standard_output(capsys):
    """Items pass unchanged and in order, and standard output stays free for results."""
    assert list(files.progress(iter([3, 1, 2]), "count", total=3)) == [3, 1, 2]
    assert capsys.readouterr().out == ""


def test_json_is_valid_for_other_readers(tmp_path):
    """The written text is plain JSON that ends with a line break."""
    text = files.write_json({"n": 1}, tmp_path / "a.json").read_text()
    assert json.loads(text) == {"n": 1}
    assert text.endswith("}\n")
