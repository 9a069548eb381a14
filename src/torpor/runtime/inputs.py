"""From an event to what a handler's first parameter takes. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from torpor.binding import is_json, to_sdk
from torpor.problems import ProblemType
from torpor.runtime.plan import Takes
from torpor.runtime.refusals import RefusalError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import TypeAdapter

    from torpor.binding import WireEvent
    from torpor.runtime.plan import Plan

_MAX_FAULTS = 20


def loader(plan: Plan) -> Callable[[WireEvent], Any]:
    """What makes the argument of one event, by ``plan``.

    It raises :class:`~torpor.errors.MalformedEventError` or :class:`RefusalError`.
    """
    if plan.takes is Takes.EVENT:
        return to_sdk
    if plan.takes is Takes.BYTES:
        return _bytes
    if plan.takes is Takes.TEXT:
        return _text
    if plan.adapter is not None:
        return _validating(plan.adapter)
    return _nothing


def _nothing(_event: WireEvent) -> None:
    return None


def _bytes(event: WireEvent) -> bytes:
    return event.data or b""


def _text(event: WireEvent) -> str:
    """The data as text; a JSON document that is a string gives that string, any other stands as it is."""
    data = event.data or b""
    content_type = event.attributes.get("datacontenttype")
    if is_json(content_type) and data.lstrip()[:1] == b'"':
        try:
            return str(orjson.loads(data))
        except orjson.JSONDecodeError as error:
            raise RefusalError(ProblemType.MALFORMED_EVENT, f"The data is not JSON: {error}.") from None
    charset = _charset(content_type)
    try:
        return data.decode(charset)
    except LookupError:
        raise RefusalError(
            ProblemType.UNSUPPORTED_MEDIA_TYPE, f"The charset {charset[:40]!r} is not known here."
        ) from None
    except UnicodeError:
        raise RefusalError(ProblemType.INVALID_DATA, f"The data is not text in {charset}.") from None


def _charset(content_type: str | None) -> str:
    for parameter in (content_type or "").split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower() or "utf-8"
    return "utf-8"


def _validating(adapter: TypeAdapter[Any]) -> Callable[[WireEvent], Any]:
    validate_json = adapter.validator.validate_json

    def load(event: WireEvent) -> Any:
        content_type = event.attributes.get("datacontenttype")
        if content_type is not None and content_type != "application/json" and not is_json(content_type):
            raise RefusalError(
                ProblemType.UNSUPPORTED_MEDIA_TYPE,
                f"The data is of type {content_type[:80]!r}; JSON was expected.",
            )
        data = event.data
        try:
            return validate_json(b"null" if data is None else data)
        except ValidationError as error:
            raise invalid(error, missing=data is None) from None

    return load


def invalid(error: ValidationError, *, missing: bool = False) -> RefusalError:
    """What a caller is told of data that is not what the handler takes. Their values are not repeated."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    if faults[0]["type"] == "json_invalid":
        return RefusalError(ProblemType.MALFORMED_EVENT, f"The data is not JSON: {faults[0]['msg']}.")
    if missing:
        return RefusalError(ProblemType.INVALID_DATA, "There is no data, and the function takes some.")
    told = [
        {"field": ".".join(str(step) for step in fault["loc"]), "message": fault["msg"]}
        for fault in faults[:_MAX_FAULTS]
    ]
    lines = [
        f"{fault['field']}: {fault['message']}" if fault["field"] else fault["message"] for fault in told
    ]
    return RefusalError(ProblemType.INVALID_DATA, "; ".join(lines) + ".", {"errors": told})
