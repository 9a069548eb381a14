"""An expression, ready to be asked whether an event is for it, and why. Pure.

As a filter (section 1.2) an event passes only where the value is true and nothing went wrong.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torpor.cesql.compiler import compiled
from torpor.cesql.functions import FUNCTIONS, find
from torpor.cesql.nodes import Attribute, Binary, Call, Exists, In, Literal, Node, Unary, walk
from torpor.cesql.parser import NO_DATA, parse
from torpor.cesql.values import Attributes, Closure, Problem, Problems, Value, cast
from torpor.errors import ExpressionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LONGEST_SHOWN = 80
_MOST_ATTRIBUTES = 3


@dataclass(frozen=True, slots=True)
class Result:
    """What an expression gives, and what went wrong on the way, if anything did."""

    value: Value
    problems: tuple[Problem, ...]


class Expression:
    """One expression, parsed and compiled. Raises :class:`~torpor.errors.ExpressionError`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._root = parse(text)
        self._closure = compiled(self._root)
        self._parts: dict[int, Closure] = {}

    def evaluate(self, attributes: Attributes) -> Result:
        """The value for an event with ``attributes``, and what went wrong first. Never raises."""
        problems: Problems = []
        value = self._closure(attributes, problems)
        return Result(value, tuple(problems))

    def matches(self, attributes: Attributes) -> bool:
        """Whether an event with ``attributes`` passes. Never raises."""
        problems: Problems = []
        return self._closure(attributes, problems) is True and not problems

    def reason(self, attributes: Attributes) -> tuple[str, str]:
        """The part that decides about an event, in words, and the attribute in it; there may be none."""
        node = self._decisive(self._root, attributes)
        result = self._part(node, attributes)
        words = self.text[node.start : node.end]
        words = repr(words if len(words) <= _LONGEST_SHOWN else f"{words[: _LONGEST_SHOWN - 3]}...")
        if result.problems:
            problem = result.problems[0]
            return f"{words} can't be said: {problem.message}", problem.attribute or next(_names(node), "")
        names = list(dict.fromkeys(_names(node)))
        given = "; ".join(_given(name, attributes) for name in names[:_MOST_ATTRIBUTES])
        value = str(result.value).lower() if isinstance(result.value, bool) else repr(result.value)
        return f"{words} is {value}" + (f": {given}" if given else ""), next(iter(names), "")

    def types(self) -> frozenset[str] | None:
        """The only event types that can pass; ``None`` when any type might."""
        return _types(self._root)

    def _decisive(self, node: Node, attributes: Attributes) -> Node:
        """The smallest part of ``node`` that by itself makes it what it is."""
        while True:
            if isinstance(node, Unary) and node.operator == "NOT":
                node = node.operand
            elif isinstance(node, Binary) and node.operator in ("AND", "OR"):
                deciding = self._deciding(node, attributes)
                if deciding is None:
                    return node
                node = deciding
            else:
                return node

    def _deciding(self, node: Binary, attributes: Attributes) -> Node | None:
        """Which operand decides by itself; ``None`` where it takes both."""
        for operand in (node.left, node.right):
            result = self._part(operand, attributes)
            if result.problems or cast(result.value, bool, []) is (node.operator == "OR"):
                return operand
        return None

    def _part(self, node: Node, attributes: Attributes) -> Result:
        """What ``node``, a part of the expression, gives by itself; it is compiled when first asked for."""
        closure = self._parts.get(id(node))
        if closure is None:
            closure = self._parts[id(node)] = compiled(node)
        problems: Problems = []
        value = closure(attributes, problems)
        return Result(value, tuple(problems))

    def check(self) -> None:
        """Find what parses and yet never works: functions that are not there, and the event's data.

        Raises :class:`~torpor.errors.ExpressionError`.
        """
        for node, _ in walk(self._root):
            place = f"at character {node.start + 1}"
            if isinstance(node, Call) and find(node.function, len(node.arguments)) is None:
                raise ExpressionError(node.start + 1, _unknown(node, place))
            if isinstance(node, Attribute | Exists) and node.name == "data":
                raise ExpressionError(node.start + 1, f"looks into data {place}, {NO_DATA}")


def _unknown(node: Call, place: str) -> str:
    overloads = FUNCTIONS.get(node.function)
    if overloads:
        counts = " or ".join(
            f"{len(each.takes)}{' or more' if each.rest is not None else ''}" for each in overloads
        )
        given = len(node.arguments)
        some = f"{given} argument{'' if given == 1 else 's'}"
        return f"calls {node.function} with {some} {place}, {counts} were expected"
    near = difflib.get_close_matches(node.function[:40], FUNCTIONS, n=1, cutoff=0.7)
    expected = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(FUNCTIONS)} was expected"
    return f"calls {node.function[:40]} {place}, which is no function, {expected}"


# --- why ---


def _names(node: Node) -> Iterator[str]:
    return (each.name for each, _ in walk(node) if isinstance(each, Attribute | Exists))


def _given(name: str, attributes: Attributes) -> str:
    value = attributes.get(name)
    if value is None:
        return f"{name} is missing"
    text = str(value)
    return f"{name} is {text if len(text) <= _LONGEST_SHOWN else f'{text[: _LONGEST_SHOWN - 3]}...'!r}"


# --- which types ---


def _types(node: Node) -> frozenset[str] | None:
    if isinstance(node, In):
        return None if node.negated else _texts(node.operand, node.members)
    if not isinstance(node, Binary):
        return None
    if node.operator == "=":
        return _texts(node.left, [node.right]) or _texts(node.right, [node.left])
    left, right = _types(node.left), _types(node.right)
    if node.operator == "AND":
        return left & right if left is not None and right is not None else (right if left is None else left)
    if node.operator == "OR" and left is not None and right is not None:
        return left | right
    return None


def _texts(attribute: Node, members: Sequence[Node]) -> frozenset[str] | None:
    if not isinstance(attribute, Attribute) or attribute.name != "type":
        return None
    texts = [each.value for each in members if isinstance(each, Literal) and isinstance(each.value, str)]
    return frozenset(texts) if len(texts) == len(members) else None
