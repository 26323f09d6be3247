"""Tests of reading PyTorch's checkpoints: what torch wrote, and what it would never write."""

import os
import pickle
import struct
import subprocess
import zipfile

import numpy as np
import pytest
from torch_checkpoints import FOLDER, FORMATS, TINY, tiny, types, views

from covidtf.files import DataError
from covidtf.weights import torch_files


def assert_equal(tensors, wanted):
    """The same names, values and types."""
    assert set(tensors) == set(wanted)
    for name, values in wanted.items():
        assert tensors[name].dtype == values.dtype
        np.testing.assert_array_equal(tensors[name], values, err_msg=name)


# Files that torch wrote


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["state-dict", "parameters", "training", "model"])
def test_checkpoints_of_torch_are_read(name, form):
    """A state dict, Parameters, and a training checkpoint with DataParallel's names hold the same."""
    tensors = torch_files.read(FOLDER / f"{name}-{form}.pt")
    counted = tensors.pop("bn1.num_batches_tracked", None)
    assert (counted is None) == (name == "parameters")
    assert_equal(tensors, tiny())


@pytest.mark.parametrize("form", FORMATS)
def test_tensors_may_lie_in_a_storage_in_any_way(form):
    """Transposed, strided, offset, without dimension, empty, of one storage: all have torch's values."""
    tensors = torch_files.read(FOLDER / f"views-{form}.pt")
    assert_equal(tensors, views())
    assert np.shares_memory(tensors["base"], tensors["transposed"])
    assert not tensors["base"].flags.writeable


@pytest.mark.parametrize("form", FORMATS)
def test_types_are_kept_and_bfloat16_widened(form):
    """float16, float32, float64, int64 and uint8 stay what they are; bfloat16 becomes the same float32."""
    tensors = torch_files.read(FOLDER / f"types-{form}.pt")
    assert_equal(tensors, types())
    assert not any(values.flags.writeable for values in tensors.values())


def test_a_later_pickle_protocol_is_read():
    """torch.save(pickle_protocol=4) gives the same tensors."""
    tensors = torch_files.read(FOLDER / "protocol-4-zip.pt")
    assert set(tensors) == {*TINY, "bn1.num_batches_tracked"}
    np.testing.assert_array_equal(tensors["fc.weight"], tiny()["fc.weight"])


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("int32-zip.pt", "asks for `torch.IntStorage`"),
        ("int32-legacy.pt", "asks for `torch.IntStorage`"),
        (
            "whole-network-zip.pt",
            r"asks for `torch.nn.modules.container.Sequential`.*save its `state_dict\(\)`",
        ),
    ],
)
def test_what_is_not_tensors_of_known_types_is_refused(file, message):
    """Other numbers and a pickled network are errors that name the file and the type."""
    with pytest.raises(DataError, match=f"{file}: .*{message}"):
        torch_files.read(FOLDER / file)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["state-dict", "views"])
def test_a_file_cut_anywhere_is_refused(name, form, tmp_path):
    """After any number of bytes the rest is missed; nothing crashes and nothing is returned."""
    whole = (FOLDER / f"{name}-{form}.pt").read_bytes()
    file = tmp_path / "cut.pt"
    for size in [*range(0, len(whole), 9), *range(len(whole) - 20, len(whole))]:
        file.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"cut.pt: cannot be read"):
            torch_files.read(file)


@pytest.mark.parametrize("form", FORMATS)
def test_a_changed_byte_never_crashes(form, tmp_path):
    """Wherever a byte is changed: an error that names the file, or tensors (the same ones from a zip)."""
    whole = (FOLDER / f"views-{form}.pt").read_bytes()
    file, outcomes = tmp_path / "changed.pt", set()
    for place in range(0, len(whole), 3):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            tensors = torch_files.read(file)
        except DataError as error:
            assert "changed.pt: cannot be read" in str(error)
            outcomes.add("refused")
        else:
            outcomes.add("read")
            if form == "zip":
                assert_equal(tensors, views())
    assert outcomes == {"refused", "read"}


# Pickles made by hand: what torch would never write


def value(item):
    """Instructions that put a number, a text or a tuple of numbers on the stack."""
    return pickle.dumps(item, 2)[2:-1]


def named(name):
    """Instruction that asks for an object."""
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def storage(kind="torch.FloatStorage", key="0", count=6, word="storage", extra=b""):
    """Instructions that refer to a storage."""
    return b"(" + value(word) + named(kind) + value(key) + value("cpu") + value(count) + extra + b"tQ"


STORAGE = storage()
NUMBERS = np.arange(6, dtype="<f4").tobytes()


def tensor(storage=STORAGE, offset=0, shape=(2, 3), strides=(3, 1), maker="torch._utils._rebuild_tensor_v2"):
    """Instructions that make a tensor."""
    hooks = b"\x89" + named("collections.OrderedDict") + b")R"
    return named(maker) + b"(" + storage + value(offset) + value(shape) + value(strides) + hooks + b"tR"


def dictionary(**items):
    """A pickle of a dict of instructions."""
    pairs = b"".join(value(name) + instructions for name, instructions in items.items())
    return b"\x80\x02}(" + pairs + b"u."


def write_zip(path, pickled, data=NUMBERS, **changes):
    """A checkpoint in the zip format, with entries added or (None) left out."""
    entries = {"a/data.pkl": pickled, "a/byteorder": b"little", "a/data/0": data} | changes
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            if content is not None:
                archive.writestr(name, content)
    return path


def write_legacy(path, pickled, keys=("0",), count=6, data=NUMBERS):
    """A checkpoint in the legacy format."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    path.write_bytes(
        b"".join(pickle.dumps(item, 2) for item in head)
        + pickled
        + pickle.dumps(list(keys), 2)
        + struct.pack("<q", count)
        + data
    )
    return path


WRITERS = {"zip": write_zip, "legacy": write_legacy}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("maker", ["torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"])
def test_pickles_by_hand_are_sound(form, maker, tmp_path):
    """Without anything wrong in them they are read, so that it is the wrong that is refused below."""
    file = WRITERS[form](tmp_path / "a.pt", dictionary(w=tensor(maker=maker)))
    assert_equal(torch_files.read(file), {"w": np.arange(6, dtype="float32").reshape(2, 3)})


def test_an_ordered_dict_of_python_2_is_read(tmp_path):
    """Python 2 wrote an OrderedDict as a call with a list of pairs, and its texts as bytes."""
    pairs = b"](](U\x01w" + tensor() + b"ee"
    file = write_legacy(tmp_path / "a.pt", b"\x80\x02" + named("collections.OrderedDict") + pairs + b"\x85R.")
    assert_equal(torch_files.read(file), {"w": np.arange(6, dtype="float32").reshape(2, 3)})


class Runs:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def attacks(marker):
    """Pickles that make a file `marker` when Python's unpickler, or torch's unsafe one, reads them."""
    command, code = f"touch {marker}", f"open({str(marker)!r}, 'w')"
    state = named("collections.OrderedDict") + b")R}(" + value("_metadata")
    return {
        "posix.system": pickle.dumps(Runs(os.system, command), 2),
        "os.system": b"\x80\x02"
        + named("os.system")
        + value((command,))[:0]
        + b"("
        + value(command)
        + b"tR.",
        "builtins.eval": pickle.dumps({"w": [Runs(eval, code)]}, 4),
        "builtins.exec": dictionary(w=b"(" + value(command) + named("builtins.exec") + b"t"),
        "builtins.getattr": b"\x80\x02" + named("builtins.getattr") + b".",
        "subprocess.Popen": pickle.dumps(
            {"state_dict": {}, "x": Runs(subprocess.Popen, ["touch", marker])}, 4
        ),
        "torch.load": b"\x80\x02" + state + named("torch.load") + b"(" + value(str(marker)) + b"tRsb.",
        "torch._utils._rebuild_tensor_v3": dictionary(w=named("torch._utils._rebuild_tensor_v3")),
        "collections.OrderedDict.fromkeys": b"\x80\x04"
        + value("collections")
        + value("OrderedDict.fromkeys")
        + b"\x93.",
    }


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", attacks("x"))
def test_a_pickle_that_runs_code_is_refused(name, form, tmp_path):
    """The error names the file and the object asked for, wherever it hides, and nothing has been run."""
    marker = tmp_path / "marker"
    file = WRITERS[form](tmp_path / "evil.pt", attacks(marker)[name])
    with pytest.raises(DataError, match=f"evil.pt: .*its pickle asks for `{name}`"):
        torch_files.read(file)
    assert not marker.exists()


def test_a_bare_pickle_that_runs_code_is_refused(tmp_path):
    """A pickle that is no checkpoint at all is not run either."""
    file, marker = tmp_path / "evil.pt", tmp_path / "marker"
    file.write_bytes(pickle.dumps(Runs(os.system, f"touch {marker}"), 2))
    with pytest.raises(DataError, match=r"evil.pt: .*asks for `posix.system`"):
        torch_files.read(file)
    assert not marker.exists()


ORDERED = named("collections.OrderedDict")
LIES = {
    "an offset outside": (dictionary(w=tensor(offset=1)), "`w` of shape .2, 3. leaves its storage of 6"),
    "a negative offset": (dictionary(w=tensor(offset=-1)), "offset, shape or strides are not sizes"),
    "strides outside": (dictionary(w=tensor(strides=(4, 1))), "leaves its storage"),
    "a negative stride": (dictionary(w=tensor(offset=5, strides=(-3, 1))), "are not sizes"),
    "a huge shape": (dictionary(w=tensor(shape=(2**40, 2**20), strides=(0, 0))), "leaves its storage"),
    "a repeated element": (dictionary(w=tensor(shape=(7,), strides=(0,))), "leaves its storage"),
    "a huge storage": (dictionary(w=tensor(storage(count=2**50))), "storage 0 has|of 6|elements"),
    "a small storage": (dictionary(w=tensor(storage(count=2), shape=(2,), strides=(1,))), "storage 0 has"),
    "a negative storage": (dictionary(w=tensor(storage(count=-1))), "without a key and a number"),
    "another type": (dictionary(w=tensor(storage("torch.DoubleStorage"))), "storage 0 has|cannot be read"),
    "two types": (
        dictionary(v=tensor(), w=tensor(storage("torch.LongStorage"))),
        "says two things of storage 0",
    ),
    "an absent storage": (dictionary(w=tensor(storage(key="1"))), "no item named|list of storages"),
    "a path as a key": (dictionary(w=tensor(storage(key="../data.pkl"))), "no item named|list of storages"),
    "a part of a storage": (dictionary(w=tensor(storage(extra=b"K\x01"))), "part of another one"),
    "another reference": (dictionary(w=storage(word="module")), "outside that is not a storage"),
    "a function as a storage": (
        dictionary(w=storage("torch._utils._rebuild_tensor")),
        "not a storage of num",
    ),
    "a text as a storage": (dictionary(w=tensor(value("x"))), "something that is not a storage"),
    "a tensor of no arguments": (dictionary(w=named("torch._utils._rebuild_tensor_v2") + b")R"), "missing"),
    "a parameter of nothing": (
        dictionary(w=named("torch._utils._rebuild_parameter") + b")R"),
        "in a way that",
    ),
    "a call of a text": (dictionary(w=value("os.system") + b")R"), "calls something that is not a name"),
    "a call of a storage type": (dictionary(w=named("torch.FloatStorage") + b")R"), "in a way that PyTorch"),
    "a changed function": (dictionary(w=ORDERED + b"}" + value("a") + b"Nsb"), "fills a _Name"),
    "a list": (b"\x80\x02].", "a state dict was wanted. Received: list|list of storages"),
    "an empty dict": (b"\x80\x02}.", "Received: an empty dict|list of storages"),
    "other entries": (dictionary(w=tensor(), epoch=value(3)), r"entries \['epoch'\]"),
    "no tensors": (dictionary(state_dict=value(3)), r"entries \['state_dict'\]|list of storages"),
    "a deeply nested key": (
        b"\x80\x02})" + b"\x85" * 300_000 + b"Ns.",
        "keys are neither texts nor numbers",
    ),
    "a repeated list": (
        b"\x80\x02]q\x00" + b"]q\x01(h\x00h\x00eq\x00" * 60 + b".",
        "Received: list|list of storages",
    ),
    "an unknown memo": (b"\x80\x02r\xff\xff\xff\x7f.", "empty stack"),
    "a lost memo": (b"\x80\x02h\x07.", "refers to something that it has not said"),
    "a mark too few": (b"\x80\x02}u.", "no mark"),
    "half a pair": (b"\x80\x02}(" + value("w") + b"u.", "neither texts nor numbers"),
    "old instructions": (b"I1\n.", "instruction INT"),
    "instructions for objects": (dictionary(w=ORDERED + b")\x81"), "instruction NEWOBJ"),
    "a long text": (b"\x80\x02}(X\xff\xff\xff\xff", "expected 4294967295 bytes"),
    "a longer text": (b"\x80\x04}(\x8d" + b"\xff" * 7 + b"\x0f", "expected .* bytes"),
    "no end": (b"\x80\x02}", "exhausted|unknown"),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("lie", LIES)
def test_a_pickle_that_lies_is_refused(lie, form, tmp_path):
    """Whatever a pickle says of storages and tensors that is not so is an error that names the file."""
    pickled, message = LIES[lie]
    file = WRITERS[form](tmp_path / "lies.pt", pickled)
    with pytest.raises(DataError, match=f"lies.pt: cannot be read as a checkpoint of PyTorch: .*({message})"):
        torch_files.read(file)


def compress(path):
    """Write a gigabyte of zeros as a checkpoint of a megabyte."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", dictionary(w=tensor(storage(count=2**22))))
        archive.writestr("a/data/0", bytes(2**24))


def overlap(path):
    """Let an entry claim to be larger than the file."""
    write_zip(path, dictionary(w=tensor()))
    data = path.read_bytes()
    place = data.rindex(b"PK\x01\x02")
    path.write_bytes(data[: place + 20] + struct.pack("<II", 2**30, 2**30) + data[place + 28 :])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (compress, "an entry is compressed"),
        (overlap, "entries are larger than the file"),
        (lambda path: write_zip(path, b"", **{"a/data.pkl": None}), "one pickle .* was wanted. Received: 0"),
        (lambda path: write_zip(path, b"", **{"b/data.pkl": b""}), "one pickle .* was wanted. Received: 2"),
        (lambda path: write_zip(path, b"", **{"a/data.pkl": None, "/data.pkl/x": b""}), "Received: 0"),
        (lambda path: write_zip(path, b"", **{"a/data.pkl": None, "../a/data.pkl": b""}), "Received: 0"),
        (lambda path: write_zip(path, b"", **{"a/constants.pkl": b""}), "TorchScript"),
        (lambda path: write_zip(path, b"", **{"a/byteorder": b"big"}), "big-endian"),
        (lambda path: path.write_bytes(b""), "neither as a zip archive nor as a pickle"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "neither as a zip archive nor as a pickle"),
        (lambda path: path.write_bytes(pickle.dumps([1, 2], 2)), "not one of `torch.save`"),
        (lambda path: write_legacy(path, dictionary(w=tensor()), count=7), "storage 0 has 7 elements"),
        (lambda path: write_legacy(path, dictionary(w=tensor()), keys=["0", "1"]), "list of storages"),
        (lambda path: write_legacy(path, dictionary(w=tensor()), keys=[("0",)]), "list of storages"),
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
        (lambda path: None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(write, message, tmp_path):
    """Archives with tricks, other files and none at all are errors that name the file."""
    write(tmp_path / "x.pt")
    with pytest.raises(DataError, match=f"x.pt: .*{message}"):
        torch_files.read(tmp_path / "x.pt")


def test_two_entries_of_one_name_are_refused(tmp_path):
    """An archive whose directory names an entry twice does not say which one is meant."""
    file = write_zip(tmp_path / "x.pt", dictionary(w=tensor()), **{"b/data/0": b""})
    file.write_bytes(file.read_bytes().replace(b"b/data/0", b"a/data/0"))
    with pytest.raises(DataError, match=r"x.pt: .*two entries have the same name"):
        torch_files.read(file)
