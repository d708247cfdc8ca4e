"""The stack and memo of a pickle, filled with values and inert placeholders (spec: model_file 7.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MAX_MEMO = 500_000
MAX_DEPTH = 100  # of containers that are open at the same time
KEYS = (str, bytes, int, float, bool, type(None))  # a deep tuple as a key would overflow the stack when hashed


class Placeholder:
    """
    Something that a pickle asks to be made: a name, or a call with its arguments; never carried out.

    Parameters
    ----------
    function : str or Placeholder
        Dotted name, or what would be called.
    arguments : object
    """

    def __init__(self, function: Any, arguments: Any = None) -> None:
        self.function, self.arguments, self.state = function, arguments, None

    @property
    def name(self) -> str:
        """The dotted name that is asked for, or that would be called."""
        found = self.function
        while isinstance(found, Placeholder):
            found = found.function
        return str(found)

    def __repr__(self) -> str:
        return f"<{self.name}, not loaded>"


class Machine:
    """The operations of pickles that make values; those that would import or call leave a note of it."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Carry out one operation on the stack."""
        if name in LITERALS:
            self._stack.append(argument)
        elif name in CONSTANTS:
            self._stack.append(CONSTANTS[name]())
        elif name not in IGNORED:
            OPERATIONS[name](self, argument)

    def result(self) -> Any:
        """Return the only value that is left."""
        if len(self._stack) != 1 or self._marks:
            raise ValueError("values are left over")
        return self._stack[0]

    def mark(self, _: Any) -> None:
        """Open a container."""
        if len(self._marks) >= MAX_DEPTH:
            raise ValueError(f"containers nested more than {MAX_DEPTH} deep")
        self._marks.append(self._stack)
        self._stack = []

    def marked(self) -> list[Any]:
        """Close the container that was opened last, and return its values."""
        values, self._stack = self._stack, self._marks.pop()
        return values

    def pop(self, _: Any = None) -> Any:
        """Take the last value; an empty container is only closed."""
        return self._stack.pop() if self._stack else self.marked()

    def put(self, argument: Any) -> None:
        """Keep the last value in the memo."""
        if len(self._memo) >= MAX_MEMO:
            raise ValueError(f"more than {MAX_MEMO} values in the memo")
        self._memo[len(self._memo) if argument is None else int(argument)] = self._stack[-1]

    def get(self, argument: Any) -> None:
        """Bring a value back from the memo."""
        self._stack.append(self._memo[int(argument)])

    def push(self, value: Any) -> None:
        """Add a value."""
        self._stack.append(value)

    def take(self, count: int) -> tuple[Any, ...]:
        """Take several values, in the order in which they came."""
        if len(self._stack) < count:
            raise ValueError("a value is missing")
        values = tuple(self._stack[-count:])
        del self._stack[-count:]
        return values

    def extend(self, values: list[Any]) -> None:
        """Add values to the list, set or placeholder that comes last."""
        last = self._stack[-1]
        if isinstance(last, list):
            last.extend(values)
        elif isinstance(last, set):
            last.update(_keys(values))
        elif not isinstance(last, Placeholder):
            raise ValueError(f"values added to a {type(last).__name__}")

    def set_items(self, values: list[Any]) -> None:
        """Add keys and values to the dictionary or placeholder that comes last."""
        last = self._stack[-1]
        if isinstance(last, dict):
            last.update(zip(_keys(values[::2]), values[1::2], strict=True))
        elif not isinstance(last, Placeholder):
            raise ValueError(f"items set in a {type(last).__name__}")

    def call(self, count: int) -> None:
        """Note a call of the first of some values with the rest."""
        function, *arguments = self.take(count)
        self.push(Placeholder(function, arguments[0] if count == 2 else tuple(arguments)))

    def build(self, _: Any) -> None:
        """Note the state that an object would be given."""
        (state,) = self.take(1)
        if isinstance(self._stack[-1], Placeholder):
            self._stack[-1].state = state

    def instance(self, argument: Any) -> None:
        """Note an object of a class whose arguments stand in the open container."""
        values = self.marked()
        function = _dotted(argument) if argument is not None else values.pop(0)
        self.push(Placeholder(function, tuple(values)))


def _keys(values: list[Any]) -> list[Any]:
    for value in values:
        if type(value) not in KEYS:
            raise ValueError(f"a {type(value).__name__} as a key")
    return values


def _dotted(argument: str) -> str:
    """Return "module.name" of what genops gives as "module name"."""
    return ".".join(argument.split(" ", 1))


LITERALS = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
IGNORED = frozenset({"PROTO", "FRAME", "STOP"})
OPERATIONS: dict[str, Callable[[Machine, Any], Any]] = {
    "MARK": Machine.mark,
    "POP": Machine.pop,
    "POP_MARK": lambda machine, _: machine.marked(),
    "DUP": lambda machine, _: machine.push(machine._stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine.get),
    "LIST": lambda machine, _: machine.push(machine.marked()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.marked())),
    "TUPLE1": lambda machine, _: machine.push(machine.take(1)),
    "TUPLE2": lambda machine, _: machine.push(machine.take(2)),
    "TUPLE3": lambda machine, _: machine.push(machine.take(3)),
    "FROZENSET": lambda machine, _: machine.push(frozenset(_keys(machine.marked()))),
    "DICT": lambda machine, _: _dict(machine),
    "APPEND": lambda machine, _: machine.extend(list(machine.take(1))),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda machine, _: machine.extend(machine.marked())),
    "SETITEM": lambda machine, _: machine.set_items(list(machine.take(2))),
    "SETITEMS": lambda machine, _: machine.set_items(machine.marked()),
    "GLOBAL": lambda machine, argument: machine.push(Placeholder(_dotted(argument))),
    "STACK_GLOBAL": lambda machine, _: machine.push(Placeholder(".".join(map(str, machine.take(2))))),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda machine, _: machine.call(2)),
    "NEWOBJ_EX": lambda machine, _: machine.call(3),
    **dict.fromkeys(("INST", "OBJ"), Machine.instance),
    "BUILD": Machine.build,
    "PERSID": lambda machine, argument: machine.push(Placeholder("persistent", argument)),
    "BINPERSID": lambda machine, _: machine.push(Placeholder("persistent", machine.take(1))),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), lambda machine, code: machine.push(Placeholder("extension", code))),
    "NEXT_BUFFER": lambda machine, _: machine.push(Placeholder("buffer")),
    "READONLY_BUFFER": lambda machine, _: None,
}


def _dict(machine: Machine) -> None:
    values = machine.marked()
    machine.push({})
    machine.set_items(values)
