"""Reads what a pickle of a file of tensors states, without building any of it.

torch's safe reader runs no code, but a kilobyte of pickle can still keep it busy for ever: a tuple
that holds another one twice, which does the same, and so on, is hashed for ages as the key of a
dict; printing or walking through such lists takes as long; and some of torch's functions make room
for whatever they are told. So the pickle is first read here, with stand-ins: lists for dicts, which
hash nothing, and a mark for each tensor. Only what torch.save writes for ordinary tensors and plain
containers passes.
"""

import pickle
import pickletools
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import IO, Any, Final, NamedTuple

MAX_BYTES: Final = 2**23  # of a pickle; 3,000 tensors take 0.5 MB
MAX_MADE: Final = 2**19  # tensors, lists, tuples and dicts; a tensor takes nine, its sizes included
MAX_PARTS: Final = 10**7  # values and characters, at each place that refers to them
MAX_LEVELS: Final = 100
MAX_KEY: Final = 10**6  # of numbers as keys: larger ones could be chosen to collide in a dict,
MAX_LARGE_KEYS: Final = 4096  # so there may be few; torch once named parameters by their addresses
_MAX_DIMENSIONS: Final = 64

_ITEMSIZES: Final = {  # bytes of an element, by the class of the storage
    **{"ByteStorage": 1, "CharStorage": 1, "BoolStorage": 1, "ShortStorage": 2, "IntStorage": 4},
    **{"LongStorage": 8, "HalfStorage": 2, "BFloat16Storage": 2, "FloatStorage": 4},
    **{"DoubleStorage": 8, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16},
}
_DTYPES: Final = (
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    *("bool", "uint8", "int8", "int16", "int32", "int64"),
)
# Classes, functions and dtypes that a pickle may name.
_NAMES: Final = frozenset(
    (
        "collections.OrderedDict",
        *("torch.Size", "torch.device"),
        *(f"torch._utils._rebuild_{what}" for what in ("tensor", "tensor_v2", "parameter")),
        *(f"torch{part}.{kind}" for kind in _ITEMSIZES for part in ("", ".cuda")),
        *(f"torch.{dtype}" for dtype in _DTYPES),
    )
)


class Refused(ValueError):
    """A file holds something that is not read, or too much of it; the message says what."""


class Storage(NamedTuple):
    """A storage as the pickle states it: bytes of an element, and the number of elements."""

    itemsize: int
    num_elements: int


class Stated(NamedTuple):
    """What a pickle states.

    content: its value, with stand-ins in place of dicts and tensors.
    storages: those that its tensors refer to, by name.
    """

    content: Any
    storages: Mapping[str, Storage]


class _Dict(list[Any]):
    """In place of a dict: its keys and values in turn."""


class _Named:
    """In place of a class or function of torch, and of a dtype."""

    def __init__(self, name: str) -> None:
        self.name = name


_STORAGE, _TENSOR, _OTHER = object(), object(), object()  # in place of what torch would make
_NO_PAIRS: Final[list[Any]] = []


def read_pickle(file: IO[bytes]) -> Stated:
    """Read the pickle that begins at the place of `file`, which is left at its end.

    Raises:
        pickle.UnpicklingError: it asks for a class, a function or an operation that torch.save does
            not write for tensors and plain containers.
        Refused: its content is of a kind, or of a size, that is not read.
        Exception: of any kind, if it is damaged.
    """
    begin = file.tell()
    content = file.read(MAX_BYTES)
    stream = BytesIO(content)
    reader = _Reader()
    for operation, argument, _ in _operations(stream, is_whole=len(content) < MAX_BYTES):
        reader.take(operation, argument)
    file.seek(begin + stream.tell())
    return reader.stated()


def _operations(stream: IO[bytes], *, is_whole: bool) -> Any:
    try:
        yield from pickletools.genops(stream)
    except ValueError as error:
        if is_whole or stream.tell() < MAX_BYTES:
            raise
        raise Refused(f"its pickle has more than {MAX_BYTES:,} bytes") from error


class _Reader:
    """Does what torch's reader would do, operation by operation, with stand-ins."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []  # stacks below the marks
        self._memo: dict[int, Any] = {}
        self._storages: dict[str, Storage] = {}
        self._hooks: list[Any] = []
        self._attributes: list[_Dict] = []
        self._num_made = 0
        self._num_copied = 0
        self._num_large_keys = 0

    def take(self, operation: pickletools.OpcodeInfo, argument: Any) -> None:
        """Do one operation."""
        name = operation.name
        if name in _VALUES:
            self._stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _STEPS:
            self._num_made += 1
            if self._num_made > MAX_MADE:
                raise Refused(f"it has more than {MAX_MADE:,} tensors, lists, tuples and dicts")
            _STEPS[name](self)
        elif name == "GLOBAL":
            self._stack.append(_Named(_checked_name(argument.replace(" ", ".", 1))))
        elif name not in ("PROTO", "STOP"):
            raise pickle.UnpicklingError(f"{name} is not read")

    def stated(self) -> Stated:
        """The value that is left at the end, after a check of everything that was made."""
        content = self._stack.pop()
        _check_size([content, *self._attributes])
        if any(self._hooks) or not all(map(_is_metadata, self._attributes)):
            raise Refused("a tensor or a state dict has attributes of other kinds than torch's")
        return Stated(content, self._storages)

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def mark(self) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        found, self._stack = self._stack, self._marked.pop()
        return found

    def make_tuple(self) -> None:
        found = self._since_mark()
        self._stack.append(tuple(found))

    def make_short_tuple(self, length: int) -> None:
        found = tuple(self._stack[-length:])
        if len(found) < length:
            raise IndexError
        self._stack[-length:] = [found]

    def append_one(self) -> None:
        self._extend([self._stack.pop()])

    def append_all(self) -> None:
        self._extend(self._since_mark())

    def _extend(self, values: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise Refused("it appends to something that is no list")
        self._stack[-1].extend(values)

    def set_one(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def set_all(self) -> None:
        self._set(self._since_mark())

    def _set(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not _Dict:
            raise Refused("it sets items of something that is no dict")
        for key in items[::2]:
            self._check_key(key)
        self._stack[-1].extend(items)

    def refer_to_storage(self) -> None:
        """The identity of a storage: a word, class, name, device, number of elements, view."""
        kind, of, name, device, num_elements, *view = self._stack.pop()
        itemsize = _ITEMSIZES[of.name.rpartition(".")[2]]
        if kind != "storage" or type(name) is not str or type(device) is not str:
            raise ValueError("it refers to something that is no storage")
        if type(num_elements) is not int or not _is_view(*view):
            raise ValueError(f"storage {name} has an odd size")
        found = Storage(itemsize, num_elements)
        if self._storages.setdefault(name, found) != found:
            raise ValueError(f"storage {name} has two sizes")
        self._stack.append(_STORAGE)

    def call(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(function) is not _Named or type(arguments) is not tuple:
            raise pickle.UnpicklingError("it calls something that is no function")
        match function.name:
            case "collections.OrderedDict":
                result: Any = self._make_dict(*arguments)
            case "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor":
                result = self._make_tensor(*arguments)
            case "torch._utils._rebuild_parameter":
                result = self._make_parameter(*arguments)
            case "torch.Size":
                (result,) = arguments
                _check_sizes(result)
            case "torch.device":
                if not all(type(part) in (str, int) for part in arguments):
                    raise Refused("it names a device by other than text")
                result = _OTHER
            case name:
                raise pickle.UnpicklingError(f"{name} is not called")
        self._stack.append(result)

    def _check_key(self, key: Any) -> None:
        """Raise Refused unless `key` is hashed at once, and as no file can foresee or misuse."""
        if type(key) is int and abs(key) < 2**63:
            self._num_large_keys += abs(key) > MAX_KEY
            if self._num_large_keys > MAX_LARGE_KEYS:
                raise Refused(f"it has more than {MAX_LARGE_KEYS:,} keys above {MAX_KEY:,}")
        elif type(key) is not str and type(key) is not bool:
            raise Refused("it has a dict whose keys are neither text nor numbers of 64 bits")

    def _make_dict(self, pairs: Any = _NO_PAIRS) -> _Dict:
        """Make an ordered dict; Python 2 wrote it with the list of its pairs."""
        if type(pairs) is not list:
            raise Refused("it makes a dict of something that is no list")
        self._num_copied += len(pairs)
        if self._num_copied > MAX_MADE:
            raise Refused("it makes too many dicts of one list")
        made = _Dict()
        for key, value in pairs:
            self._check_key(key)
            made += (key, value)
        return made

    def _make_tensor(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        stride: Any,
        requires_grad: Any = False,
        hooks: Any = (),
        metadata: Any = None,
    ) -> Any:
        if storage is not _STORAGE or type(offset) is not int or type(requires_grad) is not bool:
            raise Refused("a tensor is made of other things than a storage")
        if metadata is not None:
            raise Refused("a tensor is of a special kind; only plain ones are read")
        _check_sizes(size)
        _check_sizes(stride)
        self._hooks.append(hooks)
        return _TENSOR

    def _make_parameter(self, tensor: Any, requires_grad: Any, hooks: Any) -> Any:
        if tensor is not _TENSOR or type(requires_grad) is not bool:
            raise Refused("a parameter is made of other things than a tensor")
        self._hooks.append(hooks)
        return _TENSOR

    def set_attributes(self) -> None:
        """Set attributes; the only ones that torch.save writes are those of a state dict."""
        state = self._stack.pop()
        if type(self._stack[-1]) is not _Dict or type(state) is not _Dict:
            raise Refused("it sets attributes of something that is no state dict")
        self._attributes.append(state)


_VALUES: Final = frozenset(
    ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING")
)
_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_STEPS: Final[dict[str, Callable[[_Reader], None]]] = {
    "EMPTY_LIST": lambda reader: reader.push([]),
    "EMPTY_DICT": lambda reader: reader.push(_Dict()),
    "MARK": _Reader.mark,
    "TUPLE": _Reader.make_tuple,
    "TUPLE1": lambda reader: reader.make_short_tuple(1),
    "TUPLE2": lambda reader: reader.make_short_tuple(2),
    "TUPLE3": lambda reader: reader.make_short_tuple(3),
    "APPEND": _Reader.append_one,
    "APPENDS": _Reader.append_all,
    "SETITEM": _Reader.set_one,
    "SETITEMS": _Reader.set_all,
    "BINPERSID": _Reader.refer_to_storage,
    "REDUCE": _Reader.call,
    "BUILD": _Reader.set_attributes,
}


def _checked_name(name: str) -> str:
    """Return the name of a class or function if a pickle may name it."""
    if name in _NAMES:
        return name
    if name.startswith("torch._utils._rebuild_"):  # sparse, quantized, on another device
        raise Refused(f"it has a tensor of a special kind ({name:.80}); only plain ones are read")
    raise pickle.UnpicklingError(f"{name:.80} is not called")


def _check_sizes(sizes: Any) -> None:
    if type(sizes) is not tuple or len(sizes) > _MAX_DIMENSIONS:
        raise Refused(f"a tensor has more than {_MAX_DIMENSIONS} dimensions, or other than a tuple")
    if not all(type(size) is int for size in sizes):
        raise Refused("a tensor has a size that is no whole number")


def _is_view(view: Any = None) -> bool:
    """Whether this states a part of a storage, as torch wrote it before 0.4, or None."""
    if view is None:
        return True
    return type(view) is tuple and [type(part) for part in view] == [str, int, int]


def _is_metadata(attributes: _Dict) -> bool:
    """Whether attributes of a dict are those of a state dict: the versions of its modules."""
    if len(attributes) != 2 or attributes[0] != "_metadata" or type(attributes[1]) is not _Dict:
        return False
    modules = attributes[1]
    return all(type(name) is str for name in modules[::2]) and all(
        type(module) is _Dict and all(map(_is_version, module[::2], module[1::2]))
        for module in modules[1::2]
    )


def _is_version(key: str, value: Any) -> bool:
    """Whether these are the version of a module, or the versions of what was added to it."""
    if key == "version":
        return value is None or type(value) is int
    return type(value) is _Dict and all(type(version) is int for version in value[1::2])


def _check_size(content: Any) -> None:
    """Make sure that no walk through `content`, and no text made of it, takes long.

    What several places refer to counts at each of them.

    Raises:
        Refused: there are more than MAX_PARTS values and characters or MAX_LEVELS levels, or
            something holds itself.
    """
    done: dict[int, tuple[int, int]] = {}  # by id: parts and levels
    opened: set[int] = set()
    waiting = [content]
    while waiting:
        value = waiting[-1]
        place = id(value)
        if place in done:
            waiting.pop()
        elif place not in opened:
            opened.add(place)
            inner = [part for part in value if isinstance(part, list | tuple)]
            if any(id(part) in opened and id(part) not in done for part in inner):
                raise Refused("it has a list or a dict that holds itself")
            if any(part is _STORAGE for part in value):  # its text would have all its numbers
                raise Refused("it has a storage that is no tensor's")
            waiting += inner
        else:
            waiting.pop()
            sizes = [_size(part, done) for part in value]
            num_parts = 1 + sum(parts for parts, _ in sizes)
            num_levels = 1 + max((levels for _, levels in sizes), default=0)
            if num_parts > MAX_PARTS or num_levels > MAX_LEVELS:
                raise Refused(
                    f"its content has more than {MAX_PARTS:,} values and characters, those that "
                    f"it repeats included, or {MAX_LEVELS} levels"
                )
            done[place] = (num_parts, num_levels)


def _size(value: Any, done: Mapping[int, tuple[int, int]]) -> tuple[int, int]:
    """Parts and levels of a value; those of a list, dict or tuple are known."""
    if isinstance(value, list | tuple):
        return done[id(value)]
    return (1 + len(value) if type(value) is str else 1), 0
