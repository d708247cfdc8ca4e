"""Stack machine for the opcodes of pickles; calls and imports become placeholders (spec: model_file 7.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MAX_MEMO = 500_000
MAX_DEPTH = 100  # open containers
KEYS = (str, bytes, int, float, bool, type(None))  # hashing a deeply nested tuple would overflow the stack


class Placeholder:
    """
    An import or a call in a pickle, recorded and never executed.

    Parameters
    ----------
    function : str or Placeholder
        Dotted name of an import, or the placeholder of the called function.
    arguments : object
    """

    def __init__(self, function: Any, arguments: Any = None) -> None:
        self.function, self.arguments, self.state = function, arguments, None

    @property
    def name(self) -> str:
        """Dotted name of the import or of the called function."""
        function = self.function
        while isinstance(function, Placeholder):
            function = function.function
        return str(function)

    def __repr__(self) -> str:
        return f"<{self.name}, not loaded>"


class PickleInterpreter:
    """Stack, marks and memo of a pickle; opcodes that import or call push a :class:`Placeholder`."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Execute one opcode."""
        if name in LITERALS:
            self._stack.append(argument)
        elif name in CONSTANTS:
            self._stack.append(CONSTANTS[name]())
        elif name not in IGNORED:
            OPERATIONS[name](self, argument)

    def result(self) -> Any:
        """Return the only value on the stack."""
        if len(self._stack) != 1 or self._marks:
            raise ValueError("values are left over")
        return self._stack[0]

    def mark(self, _: Any) -> None:
        """Start a container."""
        if len(self._marks) >= MAX_DEPTH:
            raise ValueError(f"containers nested more than {MAX_DEPTH} deep")
        self._marks.append(self._stack)
        self._stack = []

    def marked(self) -> list[Any]:
        """End the last container and return its values."""
        values, self._stack = self._stack, self._marks.pop()
        return values

    def pop(self, _: Any = None) -> Any:
        """Remove and return the last value; end the container if it is empty."""
        return self._stack.pop() if self._stack else self.marked()

    def put(self, argument: Any) -> None:
        """Store the last value in the memo."""
        if len(self._memo) >= MAX_MEMO:
            raise ValueError(f"more than {MAX_MEMO} values in the memo")
        self._memo[len(self._memo) if argument is None else int(argument)] = self._stack[-1]

    def get(self, argument: Any) -> None:
        """Push a value of the memo."""
        self._stack.append(self._memo[int(argument)])

    def push(self, value: Any) -> None:
        """Push a value."""
        self._stack.append(value)

    def pop_many(self, count: int) -> tuple[Any, ...]:
        """Remove and return the last values, in the order of pushing."""
        if len(self._stack) < count:
            raise ValueError("a value is missing")
        values = tuple(self._stack[-count:])
        del self._stack[-count:]
        return values

    def extend(self, values: list[Any]) -> None:
        """Add values to the last value: a list, a set, or a placeholder, which ignores them."""
        last = self._stack[-1]
        if isinstance(last, list):
            last.extend(values)
        elif isinstance(last, set):
            last.update(_keys(values))
        elif not isinstance(last, Placeholder):
            raise ValueError(f"values added to a {type(last).__name__}")

    def set_items(self, values: list[Any]) -> None:
        """Add keys and values to the last value: a dictionary, or a placeholder, which ignores them."""
        last = self._stack[-1]
        if isinstance(last, dict):
            last.update(zip(_keys(values[::2]), values[1::2], strict=True))
        elif not isinstance(last, Placeholder):
            raise ValueError(f"items set in a {type(last).__name__}")

    def call(self, count: int) -> None:
        """Record a call: the first of `count` values is the function, the rest are its arguments."""
        function, *arguments = self.pop_many(count)
        self.push(Placeholder(function, arguments[0] if count == 2 else tuple(arguments)))

    def build(self, _: Any) -> None:
        """Record the state of an object."""
        (state,) = self.pop_many(1)
        if isinstance(self._stack[-1], Placeholder):
            self._stack[-1].state = state

    def instance(self, argument: Any) -> None:
        """Record an object; its class and arguments are in the last container."""
        values = self.marked()
        function = _dotted(argument) if argument is not None else values.pop(0)
        self.push(Placeholder(function, tuple(values)))


def _keys(values: list[Any]) -> list[Any]:
    for value in values:
        if type(value) not in KEYS:
            raise ValueError(f"a {type(value).__name__} as a key")
    return values


def _dotted(argument: str) -> str:
    """Return "module.name" for the "module name" of :func:`pickletools.genops`."""
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
OPERATIONS: dict[str, Callable[[PickleInterpreter, Any], Any]] = {
    "MARK": PickleInterpreter.mark,
    "POP": PickleInterpreter.pop,
    "POP_MARK": lambda vm, _: vm.marked(),
    "DUP": lambda vm, _: vm.push(vm._stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), PickleInterpreter.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), PickleInterpreter.get),
    "LIST": lambda vm, _: vm.push(vm.marked()),
    "TUPLE": lambda vm, _: vm.push(tuple(vm.marked())),
    "TUPLE1": lambda vm, _: vm.push(vm.pop_many(1)),
    "TUPLE2": lambda vm, _: vm.push(vm.pop_many(2)),
    "TUPLE3": lambda vm, _: vm.push(vm.pop_many(3)),
    "FROZENSET": lambda vm, _: vm.push(frozenset(_keys(vm.marked()))),
    "DICT": lambda vm, _: _dict(vm),
    "APPEND": lambda vm, _: vm.extend(list(vm.pop_many(1))),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda vm, _: vm.extend(vm.marked())),
    "SETITEM": lambda vm, _: vm.set_items(list(vm.pop_many(2))),
    "SETITEMS": lambda vm, _: vm.set_items(vm.marked()),
    "GLOBAL": lambda vm, argument: vm.push(Placeholder(_dotted(argument))),
    "STACK_GLOBAL": lambda vm, _: vm.push(Placeholder(".".join(map(str, vm.pop_many(2))))),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda vm, _: vm.call(2)),
    "NEWOBJ_EX": lambda vm, _: vm.call(3),
    **dict.fromkeys(("INST", "OBJ"), PickleInterpreter.instance),
    "BUILD": PickleInterpreter.build,
    "PERSID": lambda vm, argument: vm.push(Placeholder("persistent", argument)),
    "BINPERSID": lambda vm, _: vm.push(Placeholder("persistent", vm.pop_many(1))),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), lambda vm, code: vm.push(Placeholder("extension", code))),
    "NEXT_BUFFER": lambda vm, _: vm.push(Placeholder("buffer")),
    "READONLY_BUFFER": lambda vm, _: None,
}


def _dict(vm: PickleInterpreter) -> None:
    values = vm.marked()
    vm.push({})
    vm.set_items(values)
