"""What is wrong with a declaration, or with a request, and how it is said: ``file:line: field: problem,
expectation``.

Pure: takes what pydantic found and turns it into words that name what was written, what was expected, and the
nearest known name.
"""

from __future__ import annotations

import difflib
import re
import typing
from dataclasses import dataclass
from types import UnionType
from typing import Any, Union

from pydantic import BaseModel

from torpor.spec.values import shown

if typing.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

FieldPath = tuple[str | int, ...]

_PLAIN_SEGMENT = re.compile(r"[\w./-]{1,80}\Z", re.ASCII)
_EXPECTED_TYPES = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "path_type": "a path",
    "dict_type": "a mapping of names to values",
    "model_type": "a mapping of fields",
    "tuple_type": "a list",
}
_EXPECTED_OF_REQUESTS = {
    "int_parsing": "a whole number",
    "bool_parsing": "true or false",
    "model_attributes_type": "a mapping of fields",
    "timezone_aware": "a time with a zone, such as 2026-01-31T12:00:00Z,",
    "datetime_parsing": "a time such as 2026-01-31T12:00:00Z",
    "datetime_from_date_parsing": "a time such as 2026-01-31T12:00:00Z",
}
"""What takes texts for values, as queries do, or is no declaration's."""
_MISSING = "is missing, it has to be given"
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong; ``line`` counts from 1, ``field`` is empty when the file as a whole is."""

    file: str
    line: int | None
    field: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.field, self.message) if part)


def printable(path: Path) -> str:
    """``path`` as one line that can be printed, whatever bytes its name has."""
    text = str(path).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def field_name(path: FieldPath) -> str:
    """``path`` as a person writes it, such as ``spec.filters[0].exact``."""
    text = ""
    for segment in path:
        if isinstance(segment, int):
            text += f"[{segment}]"
            continue
        name = segment if _PLAIN_SEGMENT.match(segment) else shown(segment)
        text += f".{name}" if text else name
    return text


def line_of(path: FieldPath, lines: Mapping[FieldPath, int]) -> int:
    """The line of the field at ``path``, or else of the nearest around it; the empty path has one."""
    while path not in lines:
        path = path[:-1]
    return lines[path]


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """The name of ``known`` that is nearest to ``name``, if one is near."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name[:200].lower(), by_lower, n=1)
    return by_lower[near[0]] if near else None


def explain(errors: Sequence[ErrorDetails], model: type[BaseModel]) -> Iterator[tuple[FieldPath, str]]:
    """The field and the words for each of ``errors`` that validating a document as ``model`` gave."""
    for error in distinct(errors):
        yield _explain(error, model)


def distinct(errors: Sequence[ErrorDetails]) -> Iterator[ErrorDetails]:
    """Those of ``errors`` that say something of their own."""
    misspelt = {error["loc"][:-1] for error in errors if error["type"] == "extra_forbidden"}
    around = {error["loc"][:length] for error in errors for length in range(len(error["loc"]))}
    for error in errors:
        # What is empty only because what was in it is wrong is not at fault twice.
        if error.get("ctx", {}).get("whole") and error["loc"][:-1] in misspelt:
            continue
        if error["type"] == "too_short" and error["loc"] in around:
            continue
        yield error


def in_words(error: ErrorDetails, known: Iterable[str] = ()) -> str:
    """The words for ``error`` of a request, whose fields are ``known``; pydantic's own where we have none."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "missing":
        return _MISSING
    if kind == "extra_forbidden":
        return _unknown_field(str(error["loc"][-1]), sorted(known))
    words = _wrong_text(kind, value, context) or _wrong_value(kind, value, context)
    return words or f"is {shown(value)}: {error['msg']}"


def _wrong_text(kind: str, value: object, context: Mapping[str, Any]) -> str | None:
    if kind == "string_too_long":
        return f"has {len(str(value))} characters, at most {context['max_length']} were expected"
    if kind == "string_too_short":
        return "is empty, a text of one or more characters was expected"  # no other text is too short
    if kind == "value_error":
        return f"is {shown(value)}, {context['error']}"
    expected = _EXPECTED_OF_REQUESTS.get(kind)
    return expected and f"is {shown(value)}, {expected} was expected"


def _explain(error: ErrorDetails, model: type[BaseModel]) -> tuple[FieldPath, str]:
    path = tuple(segment for segment in error["loc"] if segment != "[key]")
    context = error.get("ctx", {})
    kind = error["type"]
    if kind == "torpor":
        base = path[:-1] if context.get("whole") else path
        return (*base, *context.get("inner", ())), context["text"]
    if kind == "missing":
        return path, _MISSING
    if kind == "extra_forbidden":
        return path, _unknown_field(str(path[-1]), _fields_at(model, path[:-1]))
    words = _wrong_value(kind, error["input"], context)
    if words is None:
        raise AssertionError(f"no words for {kind!r}")  # a test goes through every kind that models can give
    return path, words


def _unknown_field(name: str, known: list[str]) -> str:
    near = did_you_mean(name, known)
    if near is not None:
        return f"is not a field here, did you mean '{near}'?"
    return f"is not a field here, {'one of ' if known else ''}{', '.join(known) or 'none'} was expected"


def _wrong_value(kind: str, value: object, context: Mapping[str, Any]) -> str | None:
    problem = f"is {shown(value)}"
    if kind in _EXPECTED_TYPES:
        hint = ": quote it" if kind == "string_type" and isinstance(value, int | float) else ""
        return f"{problem}, {_EXPECTED_TYPES[kind]} was expected{hint}"
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"{problem}, {words} {context[name]:g} was expected"
    if kind == "literal_error":
        return f"{problem}, {context['expected']} was expected"
    if kind == "too_short":
        return f"has {context['actual_length']} entries, at least {context['min_length']} was expected"
    if kind == "too_long":
        count = context["actual_length"] or len(
            typing.cast("Sequence[object]", value)
        )  # unknown of a mapping
        return f"has {count} entries, at most {context['max_length']} were expected"
    return None


def _fields_at(model: type[BaseModel], path: FieldPath) -> list[str]:
    """The names, as written in YAML, of the fields of the object at ``path`` within a ``model``."""
    for segment in path:
        if isinstance(segment, int):
            continue  # an entry of a list has the model that the list's annotation names
        by_alias = {field.alias or name: field for name, field in model.model_fields.items()}
        model = _model_in(by_alias[segment].annotation)
    return sorted(field.alias or name for name, field in model.model_fields.items())


def _model_in(annotation: Any) -> type[BaseModel]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (tuple, Union, UnionType):
        for argument in typing.get_args(annotation):
            if argument not in (type(None), Ellipsis):
                return _model_in(argument)
    raise AssertionError(f"{annotation!r} holds no model")
