"""Reads a pickle as plain values and named stand-ins; nothing of it is run.

A pickle is a small program for a stack machine that imports what the program names and calls it.
Here Python's own unpickler gets a stand-in of ours for each name on an allow-list, and an error for
every other; a stand-in only notes what it was called with. An allow-list of names is not enough:
calls, states and dictionary keys are checked too, and only the instructions that weights files
need are done, so many at most.

The unpickler is the one in Python: the one in C takes 64 GB of memory for a memo number of 2^32.
"""

import dataclasses
import io
import pickle
import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import Any

from dataset.errors import TrainingError
from models.io.safe_io import shown

MAX_INSTRUCTIONS = 500_000  # a 1024 px StyleGAN2 with both optimisers has about 100,000

Maker = Callable[..., Any]
Makers = Mapping[str, Maker]
Persistent = Callable[[Any], Any]


@dataclasses.dataclass(slots=True)
class Noted:
    """An object of the file that is neither tensor nor plain value: what it was made of.

    Attributes:
        name: what the file calls its class.
        args: what it would have been made with.
        state: what it would have been filled with.

    """

    name: str
    args: tuple[Any, ...] = ()
    state: Any = None


# Of a file whose other parts (a discriminator, an optimiser) are of classes that are not read here
REMEDY = (
    ". If only other parts of the file need that, save the generator alone, where the file was "
    'made: {"G_ema": G_ema} with pickle, {"g_ema": g_ema.state_dict()} with torch.save'
)


class Refused(Exception):
    """The pickle asks for something that no weights file needs; the text says for what.

    Attributes:
        remedy: what a user can do about it, to stand behind the text.

    """

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.remedy = remedy


@dataclasses.dataclass(frozen=True, slots=True)
class _StandIn:
    """A name that the file names, and the maker that stands for it."""

    name: str
    make: Maker


def plain_makers() -> dict[str, Maker]:
    """Returns the makers of plain values and of things that are only noted."""
    makers: dict[str, Maker] = {
        "collections.OrderedDict": _ordered,
        "dnnlib.util.EasyDict": _ordered,
        "_codecs.encode": _encoded,
        "argparse.Namespace": _noted("argparse.Namespace"),
        "torch.Size": _noted("torch.Size"),
        "torch.device": _noted("torch.device"),
        "numpy.dtype": _noted("numpy.dtype"),
        "numpy.ndarray": _noted("numpy.ndarray"),
    }
    for module in ("builtins", "__builtin__"):
        makers[f"{module}.set"] = _set
        makers[f"{module}.bytes"] = _no_bytes
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        makers[f"{module}.scalar"] = _noted("numpy.scalar")
        makers[f"{module}._reconstruct"] = _noted("numpy.ndarray")
    return makers


def read_pickle(
    stream: io.BytesIO, makers: Makers, *, where: str, persistent: Persistent | None = None
) -> Any:
    """Reads the pickle that begins at the stream's position and leaves the stream behind it.

    makers: what stands for each name that the file may ask for. persistent: what stands for a
    persistent id, by default none is allowed. Raises TrainingError naming `where` and what the
    file names if that is no tensor and no plain value, or if the pickle is damaged.
    """
    try:
        return _Unpickler(stream, makers, persistent).load()
    except Refused as error:
        raise TrainingError(f"{where} {error}; refused{error.remedy}") from error
    except RecursionError as error:
        raise TrainingError(f"{where} is nested too deeply; refused") from error
    except _DAMAGE as error:
        cause = shown(str(error) or type(error).__name__)
        raise TrainingError(f"{where} is damaged or cut short: {cause}") from error


_DAMAGE = (pickle.UnpicklingError, AttributeError, ValueError, TypeError, IndexError, KeyError,
           OverflowError, EOFError, AssertionError, struct.error)  # fmt: skip


class _Unpickler(pickle._Unpickler):
    """Python's unpickler with stand-ins for all names and a check before each instruction."""

    # Not in typeshed
    stack: list[Any]
    metastack: list[list[Any]]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    def __init__(
        self, stream: io.BytesIO, makers: Makers, persistent: Persistent | None = None
    ) -> None:
        super().__init__(stream, encoding="latin1")
        self._makers = makers
        self._persistent = persistent
        self.dispatch = _Instructions()  # type: ignore[assignment,misc]  # `load` reads it so

    def find_class(self, module: str, name: str) -> _StandIn:
        """Returns the stand-in for a name; never imports anything."""
        full = f"{module}.{name}"
        if full not in self._makers:
            raise Refused(f"asks for {shown(full)}, which is no tensor and no plain value", REMEDY)
        return _StandIn(full, self._makers[full])

    def persistent_load(self, pid: Any) -> Any:
        """Returns what stands for a persistent id."""
        if self._persistent is None:
            raise Refused("refers to data outside itself")
        return self._persistent(pid)

    def global_on_stack(self) -> None:
        """STACK_GLOBAL."""
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise Refused("asks for something by a name that is no text")
        self.append(self.find_class(module, name))

    def call(self) -> None:
        """REDUCE and NEWOBJ: calls a maker of ours, never a class."""
        args, called = self.stack.pop(), self.stack.pop()
        if type(called) is not _StandIn:
            raise Refused(f"calls {_described(called)}, which is no tensor and no plain value")
        if type(args) is not tuple:
            raise Refused(f"calls {called.name} with {_described(args)}, where a tuple is wanted")
        self.append(called.make(*args))

    def set_state(self) -> None:
        """BUILD: only notes the state; no attribute of anything is set."""
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is Noted:
            target.state = state
        elif type(target) is not dict:  # of a dict only attributes, such as torch's _metadata
            raise Refused(f"fills {_described(target)} with a state")

    def add_items(self, kind: type[Any], items: list[Any]) -> None:
        """APPEND(S), SETITEM(S), ADDITEMS: fills a plain list, dict or set."""
        target = self.stack[-1]
        if type(target) is not kind:
            raise Refused(f"fills {_described(target)} as if it were a {kind.__name__}")
        if kind is list:
            target.extend(items)
        elif kind is set:
            target.update(_hashable(item) for item in items)
        else:
            target.update(_pairs(items))

    def dict_of_items(self) -> None:
        """DICT."""
        items = self.pop_mark()
        self.append(_pairs(items))

    def stop(self) -> None:
        """STOP."""
        if len(self.stack) > 1:
            raise ValueError(f"{len(self.stack) - 1} items are left on the stack")
        if self.metastack:
            raise ValueError("a mark is left on the stack")
        super().load_stop()  # type: ignore[misc]


class _Instructions:
    """Gives the unpickler what does each instruction; refuses the unneeded and too many."""

    def __init__(self) -> None:
        self._count = 0

    def __getitem__(self, code: int) -> Callable[[_Unpickler], None]:
        self._count += 1
        if self._count > MAX_INSTRUCTIONS:
            raise Refused(f"has more than {MAX_INSTRUCTIONS:,} instructions")
        instruction = pickletools.code2op.get(chr(code))  # type: ignore[attr-defined]
        if instruction is None:
            raise ValueError(f"there is no pickle instruction {code:#x}")
        if instruction.name in _OURS:
            return _OURS[instruction.name]
        if instruction.name not in _PYTHONS:
            raise Refused(
                f"uses the pickle instruction {instruction.name}, which no weights file needs"
            )
        done: Any = pickle._Unpickler.dispatch[code]
        return done  # type: ignore[no-any-return]


# What Python's unpickler may do: constants, literals, the memo, and plain containers
_PYTHONS = {
    *("PROTO", "FRAME", "NONE", "NEWTRUE", "NEWFALSE"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
    *("MARK", "POP", "POP_MARK", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST"),
    *("EMPTY_LIST", "EMPTY_TUPLE", "EMPTY_DICT", "EMPTY_SET", "GLOBAL", "BINPERSID"),
}
_OURS: dict[str, Callable[[_Unpickler], None]] = {
    "STACK_GLOBAL": _Unpickler.global_on_stack,
    "REDUCE": _Unpickler.call,
    "NEWOBJ": _Unpickler.call,
    "BUILD": _Unpickler.set_state,
    "APPEND": lambda machine: machine.add_items(list, [machine.stack.pop()]),
    "APPENDS": lambda machine: machine.add_items(list, machine.pop_mark()),
    "SETITEM": lambda machine: machine.add_items(dict, [*_last_two(machine.stack)]),
    "SETITEMS": lambda machine: machine.add_items(dict, machine.pop_mark()),
    "ADDITEMS": lambda machine: machine.add_items(set, machine.pop_mark()),
    "DICT": _Unpickler.dict_of_items,
    "STOP": _Unpickler.stop,
}


def _last_two(stack: list[Any]) -> tuple[Any, Any]:
    value, key = stack.pop(), stack.pop()
    return key, value


def _pairs(items: list[Any]) -> dict[Any, Any]:
    pairs = zip(items[::2], items[1::2], strict=True)
    return {_hashable(key): value for key, value in pairs}


def _described(found: Any) -> str:
    """Says what a value is, without its content."""
    return found.name if isinstance(found, _StandIn) else f"a {type(found).__name__}"


def _hashable(key: Any) -> Any:
    """Returns a key of a plain kind; others, or huge numbers, could be chosen to collide."""
    if type(key) is int and abs(key) < 1 << 63:
        return key
    if type(key) in (str, bool):
        return key
    raise Refused(f"uses a {type(key).__name__} as a key, where texts and numbers are wanted")


def _ordered(*args: Any) -> dict[Any, Any]:
    pairs = args[0] if args else ()
    if len(args) > 1 or type(pairs) not in (list, tuple, dict):
        raise Refused("makes a dictionary of something else than pairs")
    items = pairs.items() if type(pairs) is dict else pairs
    return {_hashable(key): value for key, value in items}


def _set(*args: Any) -> set[Any]:
    items = args[0] if args else ()
    if len(args) > 1 or type(items) not in (list, tuple):
        raise Refused("makes a set of something else than a list")
    return {_hashable(item) for item in items}


def _no_bytes(*args: Any) -> bytes:
    if args:
        raise Refused("makes bytes of something")
    return b""


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise Refused("encodes something else than a text in latin1")
    return text.encode("latin1")


def _noted(name: str) -> Maker:
    return lambda *args: Noted(name, args)
