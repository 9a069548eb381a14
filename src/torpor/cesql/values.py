"""Values, their types and casts, and what may go wrong with them (sections 3.1, 3.3 and 3.7). Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

LEAST, MOST = -(2**31), 2**31 - 1
_INTEGER = re.compile(r"[+-]?[0-9]+\Z")
_LONGEST_INTEGER = 64

Value = str | int | bool
Type = type[str] | type[int] | type[bool]
ZERO: Final[dict[Type, Value]] = {str: "", int: 0, bool: False}
NAMES: Final[dict[Type, str]] = {str: "a text", int: "a whole number", bool: "true or false"}


class Attributes(Protocol):
    """Where attributes are looked up; a dictionary is one. On the wire, every value is a text."""

    def get(self, name: str, /) -> Value | None:
        """The value of an attribute; ``None`` where the event has none."""
        ...


class Kind(Enum):
    """The errors of section 3.3; a *ParseError* is :class:`~torpor.errors.ExpressionError`."""

    MATH = "MathError"
    CAST = "CastError"
    MISSING_ATTRIBUTE = "MissingAttributeError"
    MISSING_FUNCTION = "MissingFunctionError"
    FUNCTION_EVALUATION = "FunctionEvaluationError"
    GENERIC = "GenericError"


@dataclass(frozen=True, slots=True)
class Problem:
    """An error of an evaluation, in words, and the attribute that it is about, if any."""

    kind: Kind
    message: str
    attribute: str = ""


Problems = list[Problem]
Closure = Callable[[Attributes, Problems], Value]


def cast(value: Value, target: Type, problems: Problems) -> Value:
    """``value`` as the type ``target``; the type's zero value, and a problem, where it can't be (3.7)."""
    if type(value) is target:
        return value
    if target is str:
        return ("false", "true")[value] if isinstance(value, bool) else str(value)
    if not isinstance(value, str):
        return target(value)
    if target is bool:
        lower = value[:6].lower()
        if lower in ("true", "false"):
            return lower == "true"
    elif len(value) <= _LONGEST_INTEGER and _INTEGER.match(value) and LEAST <= int(value) <= MOST:
        return int(value)
    text = repr(value) if len(value) <= 80 else f"{value[:77]!r}..."
    problems.append(Problem(Kind.CAST, f"{text} is not {NAMES[target]}"))
    return ZERO[target]


def whole(value: int, words: str, problems: Problems) -> int:
    """``value``, or 0 and a problem where 32 bits can't hold it; ``words`` say what it is."""
    if LEAST <= value <= MOST:
        return value
    problems.append(Problem(Kind.MATH, f"{words} is outside of what 32 bits hold"))
    return 0
