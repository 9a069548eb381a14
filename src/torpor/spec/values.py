"""The kinds of value that fields of declarations share: names, durations, paths, hosts, attributes of events.

Each check raises a ``PydanticCustomError`` whose text is ``problem, expectation``; the loader puts file, line
and field before it.
"""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from torpor.cesql.expression import Expression
from torpor.cesql.parser import MAX_LENGTH as MAX_EXPRESSION_LENGTH
from torpor.errors import ExpressionError
from torpor.spec import datapaths

FROM_FILE = {"torpor": "file"}
"""The validation context of what a person wrote: there a duration needs its unit, as text."""

MAX_NAME_LENGTH = 50  # "<name>-00001-<6 characters>" stays within 63, DNS's limit for a label
MAX_NAMESPACE_LENGTH = 63
RESERVED_PATHS = ("/function", "/events", "/api", "/system", "/ui", "/async-function")

_RESERVED = ", ".join(RESERVED_PATHS)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")
_DURATION = re.compile(r"([0-9]{1,12})(ms|s|m|h)\Z")
_DURATION_SCHEMA = "^[0-9]{1,12}(ms|s|m|h)$"
_UNITS_SECONDS = {"h": 3600, "m": 60, "s": 1}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_VARIABLE_LENGTH = 256
_HANDLER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*(:[A-Za-z_][A-Za-z0-9_]*)?\Z")
_HANDLER_LENGTH = 200
_FILE_LENGTH = 1000
_FILE_PART_BYTES = 255
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*\Z")
_PATH_LENGTH = 1024
# The reference grammar of the OCI distribution specification: a registry may have upper case and a port, the
# repository may not.
_IMAGE = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?\Z"
)
_IMAGE_LENGTH = 512
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/, without exponents.
_QUANTITY = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,9}))?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?\Z")
_FACTORS = {unit: power for power, unit in enumerate(["", "k", "M", "G", "T", "P"])} | {"K": 1}
_OBJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?\Z")
_OBJECT_KEY = re.compile(r"[-._a-zA-Z0-9]+\Z")
_ATTRIBUTE = re.compile(r"[a-z0-9]+\Z")
_LABEL_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z"
)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?\Z")


def fault(text: str, **extras: Any) -> PydanticCustomError:
    """An error with ``text`` as it stands.

    ``extras`` tell the loader where: ``inner`` is the rest of the path below the field, ``whole=True`` means
    the object that the field is in.
    """
    return PydanticCustomError("torpor", "{text}", {"text": text, **extras})


def shown(value: object) -> str:
    """``value`` as a fault shows it: quoted if it is a text, and not longer than a line bears."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
"""A whole number; ``2.0`` is one too, as for JSON schemas and an API server."""


def _dns_label(most: int) -> Any:
    def check(value: str) -> str:
        if len(value) > most:
            raise fault(f"has {len(value)} characters, at most {most} were expected")
        if not _LABEL.match(value):
            raise fault(f"is {shown(value)}, lower-case letters, digits and inner '-' were expected")
        return value

    schema = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "maxLength": most}
    return AfterValidator(check), WithJsonSchema(schema)


Name = Annotated[str, *_dns_label(MAX_NAME_LENGTH)]
Namespace = Annotated[str, *_dns_label(MAX_NAMESPACE_LENGTH)]


def parse_duration(text: str) -> float:
    """The seconds that ``text`` stands for, such as ``500ms``, ``10s``, ``2m`` or ``1h``.

    Raises ``ValueError`` for any other text.
    """
    match = _DURATION.match(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration")
    number, unit = int(match[1]), match[2]
    return number / 1000 if unit == "ms" else float(number * _UNITS_SECONDS[unit])


def format_duration(seconds: float) -> str:
    """``seconds``, to the millisecond, in the largest unit that writes them without a fraction."""
    milliseconds = round(seconds * 1000)
    if milliseconds == 0:
        return "0s"
    for unit, unit_seconds in _UNITS_SECONDS.items():
        if milliseconds % (unit_seconds * 1000) == 0:
            return f"{milliseconds // (unit_seconds * 1000)}{unit}"
    return f"{milliseconds}ms"


def duration(least_seconds: float, most_seconds: float) -> Any:
    """The annotations of a duration within bounds: written ``10s``, held in seconds."""

    def check(value: object, info: ValidationInfo) -> float:
        expected = f"{format_duration(least_seconds)} to {format_duration(most_seconds)}"
        if isinstance(value, str) and _DURATION.match(value):
            seconds = parse_duration(value)
        elif isinstance(value, int | float) and not isinstance(value, bool) and info.context != FROM_FILE:
            seconds = float(value)
        else:
            raise fault(f"is {shown(value)}, a duration such as 500ms, 10s, 2m or 1h was expected")
        if not least_seconds <= seconds <= most_seconds:
            raise fault(f"is {shown(value)}, {expected} was expected")
        return seconds

    bounds = f"{format_duration(least_seconds)} to {format_duration(most_seconds)}"
    return (
        BeforeValidator(check),
        PlainSerializer(format_duration, return_type=str, when_used="json"),
        WithJsonSchema({"type": "string", "pattern": _DURATION_SCHEMA, "x-bounds": bounds}),
    )


def check_label(key: str, value: str) -> None:
    """Check one label by the syntax that Kubernetes has for it."""
    if not _LABEL_KEY.match(key):
        raise fault(
            f"has the key {shown(key)}, letters, digits, '-', '_' and '.' were expected, or 'prefix/' before"
        )
    if not _LABEL_VALUE.match(value):
        raise fault(
            f"has the value {shown(value)}, at most 63 letters, digits, '-', '_' and '.' were expected"
        )


def _variable(value: str) -> str:
    if len(value) > _VARIABLE_LENGTH:
        raise fault(f"has {len(value)} characters, at most {_VARIABLE_LENGTH} were expected")
    if not _VARIABLE.match(value):
        raise fault(f"is {shown(value)}, letters, digits and '_', not first a digit, were expected")
    if value == "PORT" or value.startswith(("K_", "TORPOR_")):
        raise fault(f"is {shown(value)}, which the platform sets itself, another name was expected")
    return value


def _handler(value: str) -> str:
    if len(value) > _HANDLER_LENGTH or not _HANDLER.match(value):
        raise fault(f"is {shown(value)}, 'module' or 'module:name' was expected")
    return value


def _value(value: str) -> str:
    if "\x00" in value:
        raise fault("has a null character, text without one was expected")
    return value


def _file(value: Path) -> Path:
    text = str(value)
    fits = len(text) <= _FILE_LENGTH and all(len(part.encode()) <= _FILE_PART_BYTES for part in value.parts)
    if not text.isprintable() or not fits:
        raise fault(f"is {shown(text)}, a path of printable characters that a disk can have was expected")
    return value


def _image(value: str) -> str:
    if len(value) > _IMAGE_LENGTH or not _IMAGE.match(value):
        raise fault(f"is {shown(value)}, an image such as registry.example/name:1.0 was expected")
    return value


def parse_quantity(text: str) -> Fraction:
    """What ``text`` stands for, such as ``100m``, ``0.5`` or ``64Mi``: cores, or bytes.

    Raises ``ValueError`` for any other text.
    """
    match = _QUANTITY.match(text)
    if match is None:
        raise ValueError(f"{text!r} is no quantity")
    number, unit = Fraction(f"{match[1]}.{match[2] or 0}"), match[3] or ""
    if unit == "m":
        return number / 1000
    factor = 1024 if unit.endswith("i") else 1000
    return Fraction(number * factor ** _FACTORS[unit.removesuffix("i")])


def _quantity(value: str) -> str:
    if not _QUANTITY.match(value):
        raise fault(f"is {shown(value)}, a quantity such as 100m, 0.5 or 64Mi was expected")
    if parse_quantity(value) <= 0:
        raise fault(f"is {shown(value)}, more than 0 was expected")
    return value


def _object_name(value: str) -> str:
    if len(value) > 253 or not _OBJECT_NAME.match(value):
        raise fault(f"is {shown(value)}, lower-case letters, digits, inner '-' and '.' were expected")
    return value


def _object_key(value: str) -> str:
    if len(value) > 253 or not _OBJECT_KEY.match(value) or value in (".", ".."):
        raise fault(f"is {shown(value)}, letters, digits, '-', '_' and '.' were expected")
    return value


def _path(value: str) -> str:
    if len(value) > _PATH_LENGTH:
        raise fault(f"has {len(value)} characters, at most {_PATH_LENGTH} were expected")
    if not _PATH.match(value):
        raise fault(f"is {shown(value)}, a URL path that starts with '/' was expected")
    if "//" in value or any(part in (".", "..") for part in value.split("/")):
        raise fault(f"is {shown(value)}, a path without '//', '.' and '..' was expected")
    first = "/" + value.split("/")[1]
    if first in RESERVED_PATHS:
        raise fault(f"is {shown(value)}, the platform's own: a path outside {_RESERVED} was expected")
    return value if value == "/" else value.rstrip("/")


def _host(value: str) -> str:
    labels = value.split(".")
    if (
        len(value) > 253
        or labels[-1].isdigit()
        or not all(len(label) <= 63 and _LABEL.match(label) for label in labels)
    ):
        raise fault(f"is {shown(value)}, a host name in lower case, without a port, was expected")
    return value


def _filter_key(value: str) -> str:
    if not datapaths.is_path(value):
        if not _ATTRIBUTE.match(value) or value == "data":
            raise fault(
                f"is {shown(value)}, an event attribute's name in lower-case letters and digits was "
                "expected, or a path into its data such as data.order.id"
            )
        return value
    try:
        datapaths.segments(value)
    except ValueError:
        raise fault(
            f"is {shown(value)}, a path such as data.order.items.0.id was expected: at most "
            f"{datapaths.MAX_LENGTH} characters and {datapaths.MAX_SEGMENTS} names, with a backslash before "
            "a dot or backslash in a name"
        ) from None
    return value


def _expression(value: str) -> str:
    try:
        Expression(value).check()
    except ExpressionError as error:
        raise fault(str(error)) from None
    return value


def _matching(pattern: str, most: int | None = None) -> WithJsonSchema:
    bound = {} if most is None else {"maxLength": most}
    return WithJsonSchema({"type": "string", "pattern": pattern, **bound})


def _go(pattern: re.Pattern[str]) -> str:
    """``pattern`` as JSON schemas have it, and as Go's regular expressions take it."""
    return "^" + pattern.pattern.removesuffix(r"\Z") + "$"


VariableName = Annotated[str, AfterValidator(_variable), _matching(_go(_VARIABLE), _VARIABLE_LENGTH)]
VariableValue = Annotated[str, AfterValidator(_value)]
FilePath = Annotated[Path, AfterValidator(_file), Field(strict=False)]
HandlerName = Annotated[str, AfterValidator(_handler), _matching(_go(_HANDLER), _HANDLER_LENGTH)]
ImageName = Annotated[str, AfterValidator(_image), _matching(_go(_IMAGE), _IMAGE_LENGTH)]
Quantity = Annotated[str, AfterValidator(_quantity), _matching(_go(_QUANTITY), 30)]
ObjectName = Annotated[str, AfterValidator(_object_name), _matching(_go(_OBJECT_NAME), 253)]
ObjectKey = Annotated[str, AfterValidator(_object_key), _matching(_go(_OBJECT_KEY), 253)]
PathPrefix = Annotated[str, AfterValidator(_path), _matching("^/", _PATH_LENGTH)]
HostName = Annotated[str, AfterValidator(_host), _matching("^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", 253)]
ExpressionText = Annotated[
    str,
    AfterValidator(_expression),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_EXPRESSION_LENGTH}),
]
FilterKey = Annotated[str, AfterValidator(_filter_key), _matching(f"^([a-z0-9]+|{datapaths.PATTERN})$")]
