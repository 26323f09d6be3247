"""Pickles as PyTorch writes them, read without a pickle's power to call things.

Python's unpickler does what a file says. Even with a list of what may be called, a few bytes can make it ask
for gigabytes (a memo index) or overflow the stack (the hash of a nested tuple). So this is a reader for the
few instructions that a state dict needs: it builds plain containers and notes of tensors, calls nothing and
imports nothing.
"""

import pickletools
from dataclasses import dataclass
from typing import BinaryIO

# Little-endian NumPy types; bfloat16, which NumPy lacks, goes by its name.
KINDS = {
    "torch.FloatStorage": "<f4",
    "torch.DoubleStorage": "<f8",
    "torch.HalfStorage": "<f2",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "<i8",
    "torch.ByteStorage": "|u1",
}
_TENSORS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
_PARAMETER = "torch._utils._rebuild_parameter"
_DICT = "collections.OrderedDict"
_ALLOWED = (*KINDS, *_TENSORS, _PARAMETER, _DICT)
# Instructions that put their argument on the stack, a new value, or a tuple of the last few.
_VALUES = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"),
)
_NEW = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# DenseNet121's state dict takes some 30,000.
_MOST_INSTRUCTIONS = 10_000_000


@dataclass(frozen=True, slots=True)
class Storage:
    """A block of `count` numbers of one `kind` (NumPy type), named by `key` in its file."""

    key: str
    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage; `offset` and `strides` count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Name:
    """An allowed object, by its name alone."""

    text: str


def load(file: BinaryIO) -> tuple[object, dict[str, Storage]]:
    """Read one pickle; the file then stands behind it.

    Returns:
        The content (dict, list, tuple, str, int, float, bool, None, `Tensor`, `Storage`), and every storage
        that it names, by key.
    Raises:
        ValueError: If the pickle asks for an object that is not allowed (the message names it), is cut
            short, or is not one that PyTorch writes.
    """
    machine = _Machine()
    for count, (instruction, argument, _) in enumerate(pickletools.genops(file)):
        if count > _MOST_INSTRUCTIONS:
            raise ValueError(f"its pickle has more than {_MOST_INSTRUCTIONS} instructions")
        if instruction.name == "STOP":
            return machine.pop(), machine.storages
        machine.do(instruction.name, argument)
    raise ValueError("its pickle has no end")


class _Machine:
    """The stack, the memo and what each instruction does to them."""

    def __init__(self):
        self.stack, self.marks, self.memo = [], [], {}
        self.storages: dict[str, Storage] = {}
        self.actions = {
            **dict.fromkeys(("PROTO", "FRAME"), lambda argument: None),
            **dict.fromkeys(_VALUES, self.stack.append),
            **dict.fromkeys(("BINPUT", "LONG_BINPUT"), self._put),
            **dict.fromkeys(("BINGET", "LONG_BINGET"), self._get),
            "MEMOIZE": lambda argument: self._put(len(self.memo)),
            "MARK": lambda argument: self.marks.append(len(self.stack)),
            "TUPLE": lambda argument: self.stack.append(tuple(self._pop_to_mark())),
            "APPEND": lambda argument: self._extend([self.pop()]),
            "APPENDS": lambda argument: self._extend(self._pop_to_mark()),
            "SETITEM": lambda argument: self._set([self.pop(), self.pop()][::-1]),
            "SETITEMS": lambda argument: self._set(self._pop_to_mark()),
            "GLOBAL": lambda name: self._name(name.replace(" ", ".", 1)),
            "STACK_GLOBAL": lambda argument: self._name(".".join([self._text(), self._text()][::-1])),
            "BINPERSID": lambda argument: self._storage(self.pop()),
            "REDUCE": lambda argument: self._reduce(arguments=self.pop(), name=self.pop()),
            "BUILD": lambda argument: self._build(self.pop()),
        }

    def do(self, name: str, argument: object) -> None:
        if name in _NEW:
            self.stack.append(_NEW[name]())
        elif name in _TUPLES:
            self.stack.append(tuple([self.pop() for _ in range(_TUPLES[name])][::-1]))
        elif name in self.actions:
            self.actions[name](argument)
        else:
            raise ValueError(f"its pickle has the instruction {name}, which no state dict needs")

    def pop(self) -> object:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("its pickle takes from an empty stack")
        return self.stack.pop()

    def _text(self) -> str:
        value = self.pop()
        if type(value) is not str:
            raise ValueError("its pickle names an object by something that is not text")
        return value

    def _pop_to_mark(self) -> list:
        if not self.marks:
            raise ValueError("its pickle has no mark where one is needed")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _put(self, index: int) -> None:
        value = self.pop()
        self.memo[index] = value
        self.stack.append(value)

    def _get(self, index: int) -> None:
        if index not in self.memo:
            raise ValueError("its pickle refers to something that it has not said")
        self.stack.append(self.memo[index])

    def _top(self, wanted: type) -> object:
        value = self.pop()
        if type(value) is not wanted:
            raise ValueError(f"its pickle fills a {type(value).__name__} as if it were a {wanted.__name__}")
        self.stack.append(value)
        return value

    def _extend(self, items: list) -> None:
        self._top(list).extend(items)

    def _set(self, items: list) -> None:
        filled = self._top(dict)
        keys, values = items[::2], items[1::2]
        # Anything else may be nested so deeply that its hash overflows the stack.
        if len(keys) != len(values) or not all(type(key) in (str, int) for key in keys):
            raise ValueError("its pickle has a dict whose keys are neither texts nor numbers")
        filled.update(zip(keys, values, strict=True))

    def _name(self, name: str) -> None:
        if name not in _ALLOWED:
            whole = (
                ". It holds a whole network: save its `state_dict()`" if name.startswith("torch.nn.") else ""
            )
            raise ValueError(
                f"its pickle asks for `{name:.100}`; only tensors are read, nothing is run{whole}"
            )
        self.stack.append(_Name(name))

    def _storage(self, parts: object) -> None:
        right = isinstance(parts, tuple) and len(parts) in (5, 6) and parts[0] == "storage"
        if not right or not isinstance(parts[1], _Name) or parts[1].text not in KINDS:
            raise ValueError("its pickle refers to something outside that is not a storage of numbers")
        if len(parts) == 6 and parts[5] is not None:
            raise ValueError("a storage is a part of another one, which is not supported")
        key, count = parts[2], parts[4]
        if type(key) is not str or type(count) is not int or not 0 <= count < 2**60:
            raise ValueError("its pickle names a storage without a key and a number of elements")
        storage = Storage(key, KINDS[parts[1].text], count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"its pickle says two things of storage {key:.40}")
        self.stack.append(storage)

    def _reduce(self, arguments: object, name: object) -> None:
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise ValueError("its pickle calls something that is not a name")
        if name.text in _TENSORS:
            self.stack.append(_tensor(*arguments[:4]))
        elif name.text == _PARAMETER and arguments and isinstance(arguments[0], Tensor):
            self.stack.append(arguments[0])
        elif name.text == _DICT:
            self.stack.append({})
            # Python 2 wrote an OrderedDict as a list of pairs.
            for pair in arguments[0] if arguments else ():
                self._set(list(pair))
        else:
            raise ValueError(f"its pickle calls `{name.text}` in a way that PyTorch does not")

    def _build(self, state: object) -> None:
        # An OrderedDict's attribute `_metadata`, the versions of PyTorch's modules, decides nothing here.
        self._top(dict)


def _tensor(storage: object, offset: object, shape: object, strides: object) -> Tensor:
    if not isinstance(storage, Storage):
        raise ValueError("its pickle makes a tensor of something that is not a storage")
    if not isinstance(shape, tuple) or not isinstance(strides, tuple) or len(shape) != len(strides):
        raise ValueError("its pickle makes a tensor whose shape and strides do not match")
    if not all(type(number) is int and 0 <= number < 2**60 for number in (offset, *shape, *strides)):
        raise ValueError("its pickle makes a tensor whose offset, shape or strides are not sizes")
    return Tensor(storage, offset, shape, strides)
