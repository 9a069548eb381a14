"""The built-in functions (section 3.5), and those that cast. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from torpor.cesql.values import MOST, Kind, Problem, Problems, Type, Value, cast

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_TEXT = 65_536
"""Most characters of a text that a function puts together: what a match costs is bounded."""
# The property White_Space of Unicode; `str.strip` takes control characters away, too.
_SPACE: Final = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)


@dataclass(frozen=True, slots=True)
class Function:
    """One function: what it takes (``None`` is any type), what it gives, and how it gets there.

    ``rest`` is the type of any number of arguments that may follow.
    """

    takes: tuple[Type | None, ...]
    gives: Type
    apply: Callable[..., Any]
    rest: Type | None = None

    def types(self, count: int) -> tuple[Type | None, ...] | None:
        """The types of ``count`` arguments; ``None`` where it does not take so many."""
        more = count - len(self.takes)
        if more == 0 or (more > 0 and self.rest is not None):
            return (*self.takes, *(self.rest,) * more)
        return None


def _failed(problems: Problems, message: str) -> None:
    problems.append(Problem(Kind.FUNCTION_EVALUATION, message))


def _concat(problems: Problems, *texts: str) -> str:
    return _concat_with(problems, "", *texts)


def _concat_with(problems: Problems, delimiter: str, *texts: str) -> str:
    size = sum(map(len, texts)) + len(delimiter) * max(len(texts) - 1, 0)
    if size > MAX_TEXT:
        _failed(problems, f"a text gets {size:,} characters, at most {MAX_TEXT:,} were expected")
        return ""
    return delimiter.join(texts)


def _left(problems: Problems, text: str, count: int) -> str:
    if count < 0:
        _failed(problems, f"LEFT is asked for {count} characters")
        return text
    return text[:count]


def _right(problems: Problems, text: str, count: int) -> str:
    if count < 0:
        _failed(problems, f"RIGHT is asked for {count} characters")
        return text
    return text[max(len(text) - count, 0) :]


def _substring(problems: Problems, text: str, position: int, length: int = MOST) -> str:
    if length < 0 or not -len(text) <= position <= len(text):
        _failed(problems, f"SUBSTRING is asked for what is not in a text of {len(text)} characters")
        return ""
    if position == 0:
        return ""
    start = position - 1 if position > 0 else len(text) + position
    return text[start : start + length]


def _absolute(problems: Problems, value: int) -> int:
    if -value > MOST:
        problems.append(Problem(Kind.MATH, f"ABS({value}) is outside of what 32 bits hold"))
    return min(abs(value), MOST)


def _cast(target: Type) -> tuple[Function, ...]:
    def apply(problems: Problems, value: Value) -> Value:
        return cast(value, target, problems)

    return (Function((None,), target, apply),)


FUNCTIONS: Final[dict[str, tuple[Function, ...]]] = {
    "ABS": (Function((int,), int, _absolute),),
    "BOOL": _cast(bool),
    "CONCAT": (Function((), str, _concat, rest=str),),
    "CONCAT_WS": (Function((str,), str, _concat_with, rest=str),),
    "INT": _cast(int),
    "LEFT": (Function((str, int), str, _left),),
    "LENGTH": (Function((str,), int, lambda _, text: len(text)),),
    "LOWER": (Function((str,), str, lambda _, text: text.lower()),),
    "RIGHT": (Function((str, int), str, _right),),
    "STRING": _cast(str),
    "SUBSTRING": (
        Function((str, int), str, _substring),
        Function((str, int, int), str, _substring),
    ),
    "TRIM": (Function((str,), str, lambda _, text: text.strip(_SPACE)),),
    "UPPER": (Function((str,), str, lambda _, text: text.upper()),),
}
"""By name; the overloads of one differ in how many arguments they take."""


def find(name: str, count: int) -> Function | None:
    """The function ``name``, in upper case, that takes ``count`` arguments."""
    return next((each for each in FUNCTIONS.get(name, ()) if each.types(count) is not None), None)
