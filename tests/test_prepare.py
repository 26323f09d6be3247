"""Preparing a data set: what comes out, what is rejected, and what happens when the work is disturbed."""

import csv
import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from covidtf import manifest as manifests
from covidtf.files import DataError
from covidtf.images import decode, fit, read_image, store
from covidtf.images import prepare as module
from covidtf.images.prepare import load, prepare


def make_images(folder: Path, count: int) -> pd.DataFrame:
    """`count` files of several formats and shapes in `folder`, and their manifest."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        values = rng.integers(0, 256, (6 + number % 3, 7)).astype(np.uint8)
        image = Image.fromarray(values).resize((90 + 7 * (number % 5), 80), Image.Resampling.BICUBIC)
        name = f"{number:02}.{'png' if number % 2 else 'jpg'}"
        image.save(folder / name)
        rows.append(
            {"path": name, "label": "non-COVID", "source": "s", "patient_id": f"s:{number}", "view": "PA"}
        )
    return manifests.make(rows, "test")


@pytest.fixture
def chest(tmp_path):
    """Folder with ten images, and their manifest."""
    return tmp_path / "files", make_images(tmp_path / "files", 10)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def forbid_decoding(monkeypatch):
    def refuse(*args):
        raise AssertionError("a file was decoded again")

    monkeypatch.setattr(module, "decode", refuse)


def count_decoding(monkeypatch) -> list:
    calls = []
    monkeypatch.setattr(module, "decode", lambda *args: calls.append(args) or decode(*args))
    return calls


@pytest.mark.parametrize(("crop", "channels"), [("center", 1), ("resize", 3)])
def test_rows_describe_images(chest, tmp_path, crop, channels):
    """Row i of the manifest belongs to image i and carries the hashes and the properties of its file."""
    root, table = chest
    prepared = prepare(table, {"s": root}, tmp_path / "out", 64, crop, channels)
    assert isinstance(prepared.images, np.memmap) and prepared.images.shape == (10, 64, 64, channels)
    assert prepared.manifest["path"].tolist() == table["path"].tolist() and prepared.rejected.empty
    for image, row in zip(prepared.images, prepared.manifest.itertuples(), strict=True):
        data = (root / row.path).read_bytes()
        decoded = decode(data, channels, 64)
        expected = fit(decoded, 64, crop)
        np.testing.assert_array_equal(image.squeeze(), np.asarray(expected))
        assert row.sha256 == hashlib.sha256(data).hexdigest()
        assert {name: getattr(row, name) for name in decoded.properties} == decoded.properties
        means = expected.convert("L").resize((32, 32), Image.Resampling.BOX)
        assert row.phash == str(imagehash.phash(means, hash_size=16, highfreq_factor=2))
    manifests.validate(prepared.manifest, "prepared")


def test_folder_holds_four_files_that_load(chest, tmp_path):
    """After the work there are exactly the four published files, and `load` gives what `prepare` gave."""
    root, table = chest
    prepared = prepare(table, {"s": root}, tmp_path / "out", 32)
    assert sorted(content(tmp_path / "out")) == sorted(store.FILES)
    loaded = load(tmp_path / "out")
    np.testing.assert_array_equal(loaded.images, prepared.images)
    pd.testing.assert_frame_equal(loaded.manifest, prepared.manifest)
    assert (tmp_path / "out" / "images.npy").stat().st_mode & 0o444 == 0o444


def test_result_does_not_depend_on_the_number_of_threads(chest, tmp_path, monkeypatch):
    """One thread and three give the same bytes in every file."""
    root, table = chest
    monkeypatch.setattr(module, "_CHUNK", 1)
    for workers in (1, 3):
        prepare(table, {"s": root}, tmp_path / str(workers), 32, workers=workers)
    assert content(tmp_path / "1") == content(tmp_path / "3")


def test_bad_rows_are_listed_and_leave_the_manifest(chest, tmp_path):
    """Each unusable row is in `rejected` with its row number and reason; the others keep their order."""
    root, table = chest
    (tmp_path / "outside.png").write_bytes((root / "01.png").read_bytes())
    (root / "00.jpg").unlink()
    (root / "01.png").write_bytes(b"")
    (root / "02.jpg").write_bytes((root / "02.jpg").read_bytes()[:-200])
    (root / "03.png").unlink()
    (root / "03.png").symlink_to(tmp_path / "outside.png")
    (root / "04.jpg").rename(root / "moved.jpg")
    (root / "04.jpg").symlink_to("moved.jpg")
    (root / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").write_bytes((root / "05.png").read_bytes())
    (root / "folder").symlink_to(tmp_path / "folder")
    table.loc[5:8, "path"] = ["loop", "folder/a.png", "07.png\0", "08.jpg"]
    table["sha256"] = table["sha256"].astype(object)
    table.loc[8, "sha256"] = "0" * 64
    prepared = prepare(table, {"s": root}, tmp_path / "out", 32)
    expected = {
        2: "No such file",
        3: "empty file",
        4: "cannot be decoded",
        5: "a symbolic link leads out",
        7: "symbolic links",
        8: "a symbolic link leads out",
        9: "not a file name",
        10: "the manifest says 000",
    }
    assert prepared.rejected["row"].astype(int).tolist() == list(expected)
    for reason, text in zip(prepared.rejected["reason"], expected.values(), strict=True):
        assert text in reason
    assert prepared.manifest["path"].tolist() == ["04.jpg", "09.png"]
    assert list(prepared.rejected.columns) == ["source", "path", "row", "reason"]
    np.testing.assert_array_equal(
        prepared.images[1].squeeze(), np.asarray(fit(decode((root / "09.png").read_bytes()), 32, "center"))
    )


def test_known_hash_is_checked(chest, tmp_path):
    """A row whose sha256 is that of its file is accepted as it is."""
    root, table = chest
    table["sha256"] = [hashlib.sha256((root / path).read_bytes()).hexdigest() for path in table["path"]]
    prepared = prepare(table, {"s": root}, tmp_path / "out", 32)
    assert prepared.manifest["sha256"].tolist() == table["sha256"].tolist()


def test_copies_go_with_their_original(chest, tmp_path):
    """Augmented rows come after the originals, and are rejected with an original that cannot be read."""
    root, table = chest
    table["parent_id"] = ["s/09.png", "s/08.jpg", *[""] * 8]
    table["patient_id"] = ["s:9", "s:8", *table["patient_id"][2:]]
    (root / "09.png").write_bytes(b"no image")
    prepared = prepare(table, {"s": root}, tmp_path / "out", 32)
    assert prepared.manifest["path"].tolist() == [*table["path"][2:9], "01.png"]
    assert prepared.rejected["path"].tolist() == ["09.png", "00.jpg"]
    assert prepared.rejected["reason"][1] == "its original s/09.png is rejected"


def test_nothing_usable_is_an_error_that_changes_nothing(chest, tmp_path):
    """If no file can be used the error gives the first reason, and the older data set stays."""
    root, table = chest
    prepare(table, {"s": root}, tmp_path / "out", 32)
    before = content(tmp_path / "out")
    for path in root.iterdir():
        path.write_bytes(b"lost")
    with pytest.raises(DataError, match=r"no image can be used; row 2: 00\.jpg: no image of a known format"):
        prepare(table, {"s": root}, tmp_path / "out", 32)
    assert content(tmp_path / "out") == before


def test_finished_work_is_only_loaded(chest, tmp_path, monkeypatch):
    """The same call again decodes nothing and writes nothing."""
    root, table = chest
    prepare(table, {"s": root}, tmp_path / "out", 32)
    forbid_decoding(monkeypatch)
    monkeypatch.setattr(module, "opened", None)
    assert len(prepare(table, {"s": root}, tmp_path / "out", 32).images) == 10


@pytest.mark.parametrize("change", ["file", "manifest", "size", "crop", "grey"])
def test_changed_input_is_prepared_anew(chest, tmp_path, monkeypatch, change):
    """Another file content, manifest or setting replaces the data set; other files in the folder stay."""
    root, table = chest
    settings = {"size": 32, "crop": "center"}
    prepare(table, {"s": root}, tmp_path / "out", **settings)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    if change == "file":
        shutil.copy(root / "02.jpg", root / "00.jpg")
    elif change == "manifest":
        table["finding"] = "No Finding"
    else:
        settings[change] = {"size": 48, "crop": "resize", "grey": "equalised"}[change]
    calls = count_decoding(monkeypatch)
    prepared = prepare(table, {"s": root}, tmp_path / "out", **settings)
    assert len(calls) == 10 and prepared.images.shape[1] == settings["size"]
    assert sorted(content(tmp_path / "out")) == sorted([*store.FILES, "notes.txt"])


SCRIPT = """
import sys, time
from pathlib import Path
from covidtf import manifest
from covidtf.images import prepare, store
from covidtf.images import decode

store.CHECKPOINT = 2
prepare._CHUNK = 1
seen, add = [], store.Store.add
def slow(*args):
    seen.append(args)
    if len(seen) == 9:
        time.sleep(600)
    return decode(*args)
def told(self, *row):
    add(self, *row)
    if len(self.records) == 8:
        print("working", flush=True)
prepare.decode, store.Store.add = slow, told
prepare.prepare(manifest.read(sys.argv[1]), {"s": Path(sys.argv[2])}, sys.argv[3], 32, workers=1)
"""


def test_second_process_is_refused_and_a_killed_one_is_continued(chest, tmp_path, monkeypatch):
    """While a process works, another gets an error; after a kill the rest is done, to the same bytes."""
    root, table = chest
    (root / "01.png").write_bytes(b"no image")
    table = manifests.read(manifests.write(table, tmp_path / "table.csv"))
    folder = tmp_path / "out"
    arguments = [sys.executable, "-c", SCRIPT, *map(str, (tmp_path / "table.csv", root, folder))]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"working\n"
            with pytest.raises(DataError, match=r"out: another process is preparing this data set"):
                prepare(table, {"s": root}, folder, 32)
            with pytest.raises(DataError, match=r"not a finished prepared data set"):
                load(folder)
        finally:
            process.send_signal(signal.SIGKILL)
    calls = count_decoding(monkeypatch)
    prepare(table, {"s": root}, folder, 32)
    assert 0 < len(calls) <= 6
    prepare(table, {"s": root}, tmp_path / "undisturbed", 32)
    assert content(folder) == content(tmp_path / "undisturbed")


def interrupt(chest, folder: Path, monkeypatch, after: int) -> None:
    """Prepare with a decoder that stops the work at a row, checkpoints after every second row."""
    root, table = chest
    calls = []

    def stop(*args):
        calls.append(args)
        if len(calls) > after:
            raise KeyboardInterrupt
        return decode(*args)

    monkeypatch.setattr(store, "CHECKPOINT", 2)
    monkeypatch.setattr(module, "_CHUNK", 1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "decode", stop)
        prepare(table, {"s": root}, folder, 32, workers=1)


@pytest.mark.parametrize(
    "damage", ["nothing", "torn line", "garbage", "short pixels", "no pixels", "extra pixels"]
)
def test_resumption_trusts_only_what_is_whole(chest, tmp_path, monkeypatch, damage):
    """A torn journal, and pixels that are missing or too many, cost some rows but never change the result."""
    root, table = chest
    folder = tmp_path / "out"
    interrupt(chest, folder, monkeypatch, after=8)
    journal, pixels = folder / ".partial" / "rows.jsonl", folder / ".partial" / "images.npy"
    done = journal.read_bytes().count(b"\n")
    assert 2 <= done <= 8
    if damage == "torn line":
        journal.write_bytes(journal.read_bytes()[:-10])
    elif damage == "garbage":
        journal.write_bytes(journal.read_bytes()[:-10] + b"\0" * 9 + b"\n")
    elif damage != "nothing":
        size = {"short pixels": 128 + 1024 + 500, "no pixels": 0, "extra pixels": 100_000}[damage]
        os.truncate(pixels, size)
    left = {"nothing": done, "extra pixels": done, "short pixels": 1, "no pixels": 0}.get(damage, done - 1)
    calls = count_decoding(monkeypatch)
    prepare(table, {"s": root}, folder, 32)
    assert len(calls) == 10 - left
    prepare(table, {"s": root}, tmp_path / "undisturbed", 32)
    assert content(folder) == content(tmp_path / "undisturbed")


def test_interrupted_work_of_other_settings_starts_anew(chest, tmp_path, monkeypatch):
    """Rows of an interrupted call are not used for a call with another size."""
    root, table = chest
    interrupt(chest, tmp_path / "out", monkeypatch, after=6)
    calls = count_decoding(monkeypatch)
    assert prepare(table, {"s": root}, tmp_path / "out", 48).images.shape == (10, 48, 48, 1)
    assert len(calls) == 10


@pytest.mark.parametrize("older", [False, True])
def test_crash_while_publishing_is_repaired(chest, tmp_path, monkeypatch, older):
    """Between the renames nothing can be loaded; the next call finishes them without decoding."""
    root, table = chest
    folder = tmp_path / "out"
    if older:
        prepare(table.iloc[:5], {"s": root}, folder, 32)
    replace = Path.replace

    def fail(self, target):
        if self.name == "rejected.csv" and Path(target).parent == folder:
            raise OSError(errno.EIO, "Input/output error")
        return replace(self, target)

    with (
        monkeypatch.context() as patch,
        pytest.raises(OSError, match=r"cannot write to .*out: Input/output error"),
    ):
        patch.setattr(Path, "replace", fail)
        prepare(table, {"s": root}, folder, 32)
    with pytest.raises(DataError, match="not a finished prepared data set"):
        load(folder)
    forbid_decoding(monkeypatch)
    assert len(prepare(table, {"s": root}, folder, 32).images) == 10
    assert sorted(content(folder)) == sorted(store.FILES)


@pytest.fixture
def small_files():
    """No file of this process may grow beyond 10,000 bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_tables_of_an_earlier_data_set_do_not_stay(chest, tmp_path):
    """What the settings before named and the new ones do not goes; files of others stay."""
    root, table = chest
    out = tmp_path / "out"
    prepare(table, {"s": root}, out, 32, "resize", workers=1)
    settings = json.loads((out / "settings.json").read_text()) | {"tables": ["studies.csv", "../kept.csv"]}
    (out / "settings.json").write_text(json.dumps(settings))
    for name in ("studies.csv", "mine.csv", "../kept.csv"):
        (out / name).write_text("a\n")
    prepare(table, {"s": root}, out, 48, "resize", workers=1)
    names = {path.name for path in out.iterdir()}
    assert "studies.csv" not in names and "mine.csv" in names and (tmp_path / "kept.csv").exists()


def test_a_full_disk_names_the_folder_and_keeps_the_older_data(chest, tmp_path, small_files):
    """When pixels cannot be written the error names the folder, and the data set that was there stays."""
    root, table = chest
    folder = tmp_path / "out"
    prepare(table, {"s": root}, folder, 16)
    before = content(folder)
    small_files()
    with pytest.raises(OSError, match=r"cannot write to .*/out: File too large"):
        prepare(table, {"s": root}, folder, 224)
    assert content_of_files(folder) == before
    assert load(folder).images.shape == (10, 16, 16, 1)


def content_of_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_full_disk_at_the_last_moment(chest, tmp_path, monkeypatch):
    """An error of the disk that shows only when data is forced onto it is not lost."""
    root, table = chest

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        monkeypatch.context() as patch,
        pytest.raises(OSError, match=r"cannot write to .*out: No space left"),
    ):
        patch.setattr(store.os, "fsync", full)
        prepare(table, {"s": root}, tmp_path / "out", 32)
    assert not content_of_files(tmp_path / "out")
    assert len(prepare(table, {"s": root}, tmp_path / "out", 32).images) == 10


def test_a_folder_that_cannot_be_made_is_named(chest, tmp_path):
    """A path below a file gives an error with the name of the folder."""
    root, table = chest
    with pytest.raises(OSError, match=r"cannot write to .*00\.jpg/out: Not a directory"):
        prepare(table, {"s": root}, root / "00.jpg" / "out", 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 8}, r"`size` must be in \[16, 2048\]. Received: 8"),
        ({"crop": "middle"}, r"`crop` must be one of .* Received: 'middle'"),
        ({"grey": "white"}, r"`grey` must be one of .* Received: 'white'"),
        ({"channels": 4}, r"`channels` must be 1 or 3. Received: 4"),
        ({"workers": 0}, r"`workers` must be at least 1, or None. Received: 0"),
        ({"roots": {"t": Path()}}, r"`roots` must have a folder for \['s'\]. Received: \['t'\]"),
        ({"roots": {"s": Path("absent")}}, r"absent: no such folder \(source 's'\)"),
        ({"manifest": "empty"}, r"there are no rows to prepare"),
    ],
)
def test_arguments_are_checked_before_anything_is_written(chest, tmp_path, arguments, message):
    """A wrong argument gives an error with what was wanted and what came, and no folder."""
    root, table = chest
    given = {"manifest": table, "roots": {"s": root}, "folder": tmp_path / "out", "size": 32} | arguments
    if isinstance(given["manifest"], str):
        given["manifest"] = table.iloc[:0]
    with pytest.raises(ValueError, match=message):
        prepare(**given)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("absent", r"manifest\.csv is missing"),
        ("cut", r"images\.npy: not a whole array"),
        ("rows", r"images\.npy: one 8-bit image for each of 9 rows"),
        ("type", r"images\.npy: one 8-bit image .* Received: float64"),
    ],
)
def test_damaged_data_sets_do_not_load(chest, tmp_path, damage, message):
    """A missing, shortened or unfitting part is an error that names the file."""
    root, table = chest
    prepare(table, {"s": root}, tmp_path / "out", 32)
    images, rows = tmp_path / "out" / "images.npy", tmp_path / "out" / "manifest.csv"
    if damage == "absent":
        rows.unlink()
    elif damage == "cut":
        os.truncate(images, 500)
    elif damage == "rows":
        manifests.write(manifests.read(rows).iloc[:9], rows)
    else:
        np.save(images, np.zeros((10, 32, 32, 1)))
    with pytest.raises(DataError, match=message):
        load(tmp_path / "out")


def test_few_results_wait_at_a_time():
    """Work runs ahead of its use by a bounded number of items, so memory does not grow with their number."""
    made, ahead = [], []
    for used, item in enumerate(
        module.in_order(lambda item: made.append(item) or item, list(range(500)), 2, 3)
    ):
        assert item == used
        ahead.append(len(made) - used)
    # Nine chunks of three wait at most; the one in use is not among them.
    assert len(made) == 500 and max(ahead) <= 3 * (4 * 2 + 1 + 1)


def test_settings_say_how_the_data_was_made(chest, tmp_path):
    """The settings and the list of rejected rows can be read without this package."""
    root, table = chest
    (root / "00.jpg").write_bytes(b"")
    prepare(table, {"s": root}, tmp_path / "out", 32, "resize", 3)
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert {name: settings[name] for name in ("size", "crop", "channels")} == {
        "size": 32,
        "crop": "resize",
        "channels": 3,
    }
    with (tmp_path / "out" / "rejected.csv").open() as file:
        assert list(csv.DictReader(file)) == [
            {"source": "s", "path": "00.jpg", "row": "2", "reason": "empty file"}
        ]


@pytest.mark.parametrize("folder", ["covid-chestxray-dataset/images", "ChestX-ray14/images", "originals"])
def test_real_images_are_close_to_the_plain_loop(real_data, tmp_path, folder):
    """On real X-rays the mean absolute difference to `convert("RGB").resize` is under 0.006 of the range."""
    root = real_data / folder
    paths = sorted(root.iterdir())[:40]
    rows = [
        {"path": path.name, "label": "x", "source": "s", "patient_id": "s:1", "view": "PA"} for path in paths
    ]
    prepared = prepare(manifests.make(rows, folder), {"s": root}, tmp_path, crop="resize", channels=3)
    assert prepared.rejected.empty
    differences = []
    for path, image in zip(paths, prepared.images, strict=True):
        with Image.open(path) as file:
            plain = np.asarray(file.convert("RGB").resize((224, 224)), dtype=float)
        differences.append(np.abs(plain - image).mean() / 255)
    assert np.mean(differences) < 0.006


def test_reading_and_preparing_agree(chest, tmp_path):
    """A PNG of the prepared size passes through unchanged, as `read_image` gives it."""
    root, table = chest
    values = np.random.default_rng(1).integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(values).save(root / "01.png")
    prepared = prepare(table, {"s": root}, tmp_path / "out", 32)
    np.testing.assert_array_equal(prepared.images[1], read_image(root / "01.png"))
