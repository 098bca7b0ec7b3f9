"""Reads a pickle as a list of facts: plain values and named stand-ins, nothing of it is run.

A pickle is a small program for a stack machine; Python's own machine imports what the program
names and calls it. The machine here knows only the instructions that weights files need. A name in
the program is looked up in a table of makers, which only note what they were called with; no name
is ever imported, and no attribute of anything is set.

Source: the instructions' meanings as in the standard library's `pickletools`.
"""

import dataclasses
import io
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

from dataset.errors import TrainingError
from models.shown import shown

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


class Refused(Exception):
    """The pickle asks for something that no weights file needs; the text says for what."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Name:
    """A name that the file asked for, and the maker that stands for it."""

    name: str
    make: Maker


class _Mark:
    """Where a run of items on the stack begins."""


_MARK = _Mark()


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
    file asked for if that is no tensor and no plain value, or if the pickle is damaged.
    """
    machine = _Machine(makers, persistent)
    try:
        for count, (instruction, arg, _) in enumerate(pickletools.genops(stream)):
            if count >= MAX_INSTRUCTIONS:
                raise Refused(f"has more than {MAX_INSTRUCTIONS:,} instructions")
            machine.step(instruction.name, arg)
    except Refused as error:
        raise TrainingError(f"{where} {error}; refused") from error
    except RecursionError as error:
        raise TrainingError(f"{where} is nested too deeply; refused") from error
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, AssertionError) as error:
        told = shown(str(error) or type(error).__name__)
        raise TrainingError(f"{where} is damaged or cut short: {told}") from error
    return machine.result


class _Machine:
    """The stack, the memo and what each instruction does to them."""

    def __init__(self, makers: Makers, persistent: Persistent | None) -> None:
        self._makers = makers
        self._persistent = persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self.result: Any = None

    def step(self, name: str, arg: Any) -> None:
        """Does one instruction; raises Refused for one that weights files do without."""
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            self._stack.append(arg)
        elif name in _STEPS:
            _STEPS[name](self, arg)
        elif name not in _SKIPPED:
            raise Refused(f"uses the pickle instruction {name}, which no weights file needs")

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("an item is missing on the stack")
        return value

    def _pop_items(self) -> list[Any]:
        items: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            items.append(value)
        return items[::-1]

    def _top(self, kind: type[Any]) -> Any:
        found = self._stack[-1]
        if type(found) is not kind:
            raise Refused(f"fills {_told(found)} as if it were a {kind.__name__}")
        return found

    # Memory
    def _remember(self, arg: Any) -> None:
        self._memo[len(self._memo) if arg is None else int(arg)] = self._stack[-1]

    def _recall(self, arg: Any) -> None:
        self._stack.append(self._memo[int(arg)])

    # Containers
    def _mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def _drop(self, _: Any) -> None:
        self._stack.pop()

    def _drop_items(self, _: Any) -> None:
        self._pop_items()

    def _tuple(self, size: int) -> None:
        items = [self._pop() for _ in range(size)]
        self._stack.append(tuple(items[::-1]))

    def _tuple_of_items(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_items()))

    def _list_of_items(self, _: Any) -> None:
        self._stack.append(self._pop_items())

    def _dict_of_items(self, _: Any) -> None:
        items = self._pop_items()
        self._stack.append({})
        self._put(items)

    def _append(self, _: Any) -> None:
        value = self._pop()
        self._top(list).append(value)

    def _appends(self, _: Any) -> None:
        items = self._pop_items()
        self._top(list).extend(items)

    def _add_items(self, _: Any) -> None:
        items = self._pop_items()
        self._top(set).update(_hashable(item) for item in items)

    def _set_item(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._put([key, value])

    def _set_items(self, _: Any) -> None:
        self._put(self._pop_items())

    def _put(self, items: list[Any]) -> None:
        target = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_hashable(key)] = value

    # Names and what is made by them
    def _global(self, arg: Any) -> None:
        module, _, name = str(arg).partition(" ")
        self._look_up(module, name)

    def _global_on_stack(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            raise Refused("asks for something by a name that is no text")
        self._look_up(module, name)

    def _look_up(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full not in self._makers:
            raise Refused(f"asks for {shown(full)}, which is no tensor and no plain value")
        self._stack.append(_Name(full, self._makers[full]))

    def _make(self, _: Any) -> None:
        args, called = self._pop(), self._pop()
        if type(called) is not _Name:
            raise Refused(f"calls {_told(called)}, which is no tensor and no plain value")
        if type(args) is not tuple:
            raise Refused(f"calls {called.name} with {_told(args)}, where a tuple is wanted")
        self._stack.append(called.make(*args))

    def _fill(self, _: Any) -> None:
        state = self._pop()
        target = self._stack[-1]
        if type(target) is Noted:
            target.state = state
        elif type(target) is not dict:  # of a dict only attributes, such as torch's _metadata
            raise Refused(f"fills {_told(target)} with a state")

    def _persist(self, _: Any) -> None:
        if self._persistent is None:
            raise Refused("refers to data outside itself")
        self._stack.append(self._persistent(self._pop()))

    def _stop(self, _: Any) -> None:
        self.result = self._pop()
        if self._stack:
            raise ValueError(f"{len(self._stack)} items are left on the stack")


_SKIPPED = {"PROTO", "FRAME"}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PUT": _Machine._remember,
    "BINPUT": _Machine._remember,
    "LONG_BINPUT": _Machine._remember,
    "MEMOIZE": _Machine._remember,
    "GET": _Machine._recall,
    "BINGET": _Machine._recall,
    "LONG_BINGET": _Machine._recall,
    "MARK": _Machine._mark,
    "POP": _Machine._drop,
    "POP_MARK": _Machine._drop_items,
    "TUPLE": _Machine._tuple_of_items,
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
    "LIST": _Machine._list_of_items,
    "DICT": _Machine._dict_of_items,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "ADDITEMS": _Machine._add_items,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._global_on_stack,
    "REDUCE": _Machine._make,
    "NEWOBJ": _Machine._make,
    "BUILD": _Machine._fill,
    "BINPERSID": _Machine._persist,
    "STOP": _Machine._stop,
}


def _told(found: Any) -> str:
    """Says what a value is, without its content."""
    return found.name if isinstance(found, _Name) else f"a {type(found).__name__}"


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
