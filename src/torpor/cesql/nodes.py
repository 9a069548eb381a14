"""What an expression is made of. Pure.

``start`` and ``end`` are where a node stands in the expression's text, so that its words can be shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torpor.cesql.values import Value


@dataclass(frozen=True, slots=True)
class _Node:
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Literal(_Node):
    """A text, a whole number, or true or false."""

    value: Value


@dataclass(frozen=True, slots=True)
class Attribute(_Node):
    """The value of an attribute."""

    name: str


@dataclass(frozen=True, slots=True)
class Exists(_Node):
    """Whether the event has an attribute."""

    name: str


@dataclass(frozen=True, slots=True)
class Unary(_Node):
    """``NOT`` or ``-`` before an operand."""

    operator: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary(_Node):
    """An operator between two operands; its letters are upper-case."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Like(_Node):
    """Whether a text is like a pattern."""

    operand: Node
    pattern: str
    negated: bool


@dataclass(frozen=True, slots=True)
class In(_Node):
    """Whether a value is among others."""

    operand: Node
    members: tuple[Node, ...]
    negated: bool


@dataclass(frozen=True, slots=True)
class Call(_Node):
    """A function's result; its name is upper-case."""

    function: str
    arguments: tuple[Node, ...]


Node = Literal | Attribute | Exists | Unary | Binary | Like | In | Call


def children(node: Node) -> tuple[Node, ...]:
    """The nodes that ``node`` is made of, from left to right."""
    if isinstance(node, Unary | Like):
        return (node.operand,)
    if isinstance(node, Binary):
        return (node.left, node.right)
    if isinstance(node, In):
        return (node.operand, *node.members)
    return node.arguments if isinstance(node, Call) else ()


def walk(root: Node) -> Iterator[tuple[Node, int]]:
    """``root`` and all nodes below it, from left to right, each with its depth; ``root`` is at depth 1."""
    waiting = [(root, 1)]
    while waiting:
        node, depth = waiting.pop()
        yield node, depth
        waiting += [(child, depth + 1) for child in reversed(children(node))]
