"""Logs as JSON, one line a record, on standard output; each says which request, event and trace it is of."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from torpor.runtime.calls import CURRENT

if TYPE_CHECKING:
    from torpor.settings import RuntimeSettings

_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {
    "message",
    "asctime",
    "taskName",
}
_OWN = frozenset(("time", "level", "logger", "exception"))
_MAX_TEXT = 32_768


class JsonFormatter(logging.Formatter):
    """A record as one JSON object. ``about`` is said with every one."""

    def __init__(self, about: dict[str, str]) -> None:
        super().__init__()
        self._about = about

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _cut(_message(record)),
            **self._about,
        }
        call = CURRENT.get()
        if call is not None:
            document["request"] = call.request_id
            if call.events:
                document["event"] = call.events[0].attributes.get("id")
                if len(call.events) > 1:
                    document["events"] = len(call.events)
            document["trace"] = call.trace.trace_id
            document["span"] = call.trace.span_id
        for name, value in vars(record).items():
            if name not in _STANDARD and name not in document and name not in _OWN and name[:1] != "_":
                document[name] = value
        if record.exc_info and record.exc_info[0] is not None:
            document["exception"] = _cut(self.formatException(record.exc_info))
        try:
            return orjson.dumps(document, default=_shown, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:  # a number or a text that JSON has no form for
            return orjson.dumps({name: _clean(str(value)) for name, value in document.items()}).decode()


def _message(record: logging.LogRecord) -> str:
    try:
        return _clean(record.getMessage())
    except (TypeError, ValueError, KeyError) as error:
        return _clean(f"{record.msg} (its arguments don't fit: {error})")


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode() if not text.isascii() else text


def _cut(text: str) -> str:
    text = _clean(text)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}… ({len(text)} characters)"


def _shown(value: object) -> str:
    return repr(value)[:1000]


class _Output(logging.Handler):
    """Writes to whatever standard output is at the time, whole lines."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stdout.write(self.format(record) + "\n")
            sys.stdout.flush()
        except (OSError, ValueError):
            return  # nobody reads any more: there is nowhere to say so


def configure(settings: RuntimeSettings, name: str) -> None:
    """Make JSON lines of all that is logged in this process."""
    about = {"function": settings.service or name, "namespace": settings.namespace}
    if settings.revision:
        about["revision"] = settings.revision
    if settings.instance:
        about["instance"] = settings.instance
    handler = _Output()
    handler.setFormatter(JsonFormatter(about))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(capture=True)
