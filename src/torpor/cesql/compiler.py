"""From nodes to closures that evaluate them (sections 3.2 to 3.7). Pure.

A closure gives a value, and none raises. What goes wrong is appended to the problems, and ends the evaluation
(the *fail fast mode* of section 4.1): whatever finds a problem there gives the zero value of its type.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Final

from torpor.cesql.functions import find
from torpor.cesql.like import pattern
from torpor.cesql.nodes import Attribute, Binary, Call, Exists, In, Like, Literal, Node, Unary
from torpor.cesql.values import (
    ZERO,
    Attributes,
    Closure,
    Kind,
    Problem,
    Problems,
    Type,
    Value,
    cast,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_ORDERS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compiled(node: Node) -> Closure:
    """The closure of ``node``, which is no deeper than a parser lets it be."""
    return _MAKERS[type(node)](node)


def gives(node: Node) -> Type | None:
    """The type of what ``node`` gives; ``None`` where only the event can tell."""
    if isinstance(node, Attribute):
        return None
    if isinstance(node, Literal):
        return type(node.value)
    if isinstance(node, Call):
        function = find(node.function, len(node.arguments))
        return bool if function is None else function.gives
    if isinstance(node, Unary):
        return bool if node.operator == "NOT" else int
    return int if isinstance(node, Binary) and node.operator in _ARITHMETIC else bool


def _as(target: Type, node: Node) -> Closure:
    """The closure of ``node``, what it gives being cast to ``target``."""
    closure, zero = compiled(node), ZERO[target]
    if gives(node) is target:
        return closure

    def evaluate(attributes: Attributes, problems: Problems) -> Value:
        value = closure(attributes, problems)
        return zero if problems else cast(value, target, problems)

    return evaluate


def _literal(node: Literal) -> Closure:
    value = node.value
    return lambda attributes, problems: value  # noqa: ARG005


def _attribute(node: Attribute) -> Closure:
    name = node.name
    problem = _missing(name)

    def evaluate(attributes: Attributes, problems: Problems) -> Value:
        value = attributes.get(name)
        if value is None:
            problems.append(problem)
            return False
        return value

    return evaluate


def _missing(name: str) -> Problem:
    return Problem(Kind.MISSING_ATTRIBUTE, f"{name} is missing", name)


def _exists(node: Exists) -> Closure:
    name = node.name
    return lambda attributes, problems: attributes.get(name) is not None  # noqa: ARG005


def _unary(node: Unary) -> Closure:
    negates = node.operator == "NOT"
    operand = _as(bool if negates else int, node.operand)

    def evaluate(attributes: Attributes, problems: Problems) -> Value:
        value = operand(attributes, problems)
        if problems:
            return False if negates else 0
        return not value if negates else whole(-int(value), f"-({value})", problems)

    return evaluate


# --- operators between two operands ---


def _binary(node: Binary) -> Closure:
    if node.operator in ("AND", "OR"):
        return _short(node)
    if node.operator in ("=", "!="):
        return _equal(node)
    if node.operator == "XOR":
        return _both(node, bool, False, lambda left, right, _: left != right)
    if node.operator in _ORDERS:
        order = _ORDERS[node.operator]
        return _both(node, int, False, lambda left, right, _: order(left, right))
    return _both(node, int, 0, _ARITHMETIC[node.operator])


def _both(node: Binary, target: Type, zero: Value, apply: Callable[[Any, Any, Problems], Value]) -> Closure:
    left, right = _as(target, node.left), _as(target, node.right)

    def evaluate(attributes: Attributes, problems: Problems) -> Value:
        one = left(attributes, problems)
        if problems:
            return zero
        other = right(attributes, problems)
        return zero if problems else apply(one, other, problems)

    return evaluate


def _short(node: Binary) -> Closure:
    """``AND`` and ``OR``: the right operand counts only where the left one does not decide."""
    left, right = _as(bool, node.left), _as(bool, node.right)
    decides = node.operator == "OR"

    def evaluate(attributes: Attributes, problems: Problems) -> Value:
        value = left(attributes, problems)
        if problems:
            return False
        if value is decides:
            return decides
        value = right(attributes, problems)
        return value is True and not problems

    return evaluate


def _equal(node: Binary) -> Closure:
    """``=`` and ``!=``: the type of the right operand says as what they are compared (section 3.7)."""
    wanted = node.operator == "="
    right_type = gives(node.right)
    if isinstance(node.left, Attribute) and isinstance(node.right, Literal) and right_type is str:
        return _equal_text(node.left.name, node.right.value, wanted)
    left, right = compiled(node.left), compiled(node.right)

    def evaluate(attributes: Attributes, problems: Problems) -> Value:
        one = left(attributes, problems)
        if problems:
            return False
        other = right(attributes, problems)
        if problems:
            return False
        same = cast(one, type(other), problems) == other
        return same is wanted and not problems

    return evaluate


def _equal_text(name: str, text: Value, wanted: bool) -> Closure:
    """The most frequent of all, with nothing to be found out about it."""
    problem = _missing(name)

    def evaluate(attributes: Attributes, problems: Problems) -> Value:
        value = attributes.get(name)
        if value is None:
            problems.append(problem)
            return False
        return (cast(value, str, problems) == text) is wanted

    return evaluate


def _add(left: int, right: int, problems: Problems) -> int:
    return whole(left + right, f"{left} + {right}", problems)


def _subtract(left: int, right: int, problems: Problems) -> int:
    return whole(left - right, f"{left} - {right}", problems)


def _multiply(left: int, right: int, problems: Problems) -> int:
    return whole(left * right, f"{left} * {right}", problems)


def _divide(left: int, right: int, problems: Problems) -> int:
    """Rounds towards zero."""
    if right == 0:
        problems.append(Problem(Kind.MATH, f"{left} is divided by 0"))
        return 0
    size = abs(left) // abs(right)
    return whole(size if (left < 0) == (right < 0) else -size, f"{left} / {right}", problems)


def _remainder(left: int, right: int, problems: Problems) -> int:
    """Has the sign of ``left``."""
    if right == 0:
        problems.append(Problem(Kind.MATH, f"{left} is divided by 0"))
        return 0
    size = abs(left) % abs(right)
    return -size if left < 0 else size


_ARITHMETIC: Final[dict[str, Callable[[int, int, Problems], int]]] = {
    "+": _add,
    "-": _subtract,
    "*": _multiply,
    "/": _divide,
    "%": _remainder,
}


# --- LIKE, IN and functions ---


def _like(node: Like) -> Closure:
    operand, fits, wanted = _as(str, node.operand), pattern(node.pattern), not node.negated

    def evaluate(attributes: Attributes, problems: Problems) -> Value:
        value = operand(attributes, problems)
        return not problems and fits(str(value)) is wanted

    return evaluate


def _in(node: In) -> Closure:
    """The members are compared as the type of what is looked for."""
    operand, wanted = compiled(node.operand), not node.negated
    members = [compiled(member) for member in node.members]
    texts = frozenset(member.value for member in node.members if isinstance(member, Literal))
    plain = all(isinstance(member, Literal) and gives(member) is str for member in node.members)

    def evaluate(attributes: Attributes, problems: Problems) -> Value:
        value = operand(attributes, problems)
        if problems:
            return False
        if plain and isinstance(value, str):
            return (value in texts) is wanted
        found = False
        for member in members:
            other = member(attributes, problems)
            if problems:
                return False
            found = cast(other, type(value), problems) == value or found
            if problems:
                return False
        return found is wanted

    return evaluate


def _call(node: Call) -> Closure:
    function = find(node.function, len(node.arguments))
    types = None if function is None else function.types(len(node.arguments))
    if function is None or types is None:
        count = len(node.arguments)
        problem = Problem(Kind.MISSING_FUNCTION, f"there is no function {node.function} of {count} arguments")

        def refuse(attributes: Attributes, problems: Problems) -> Value:  # noqa: ARG001
            problems.append(problem)
            return False

        return refuse
    arguments = [
        compiled(argument) if target is None else _as(target, argument)
        for target, argument in zip(types, node.arguments, strict=True)
    ]
    apply, zero = function.apply, function.gives()

    def evaluate(attributes: Attributes, problems: Problems) -> Value:
        values = []
        for argument in arguments:
            values.append(argument(attributes, problems))
            if problems:
                return zero
        value: Value = apply(problems, *values)
        return value

    return evaluate


_MAKERS: Final[dict[type, Callable[[Any], Closure]]] = {
    Literal: _literal,
    Attribute: _attribute,
    Exists: _exists,
    Unary: _unary,
    Binary: _binary,
    Like: _like,
    In: _in,
    Call: _call,
}
