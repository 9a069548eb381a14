"""What a process of the platform logs: lines, with what belongs to each at its end."""

from __future__ import annotations

import logging

_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__)


class _Formatter(logging.Formatter):
    """A line with what was given as ``extra`` at its end."""

    def format(self, record: logging.LogRecord) -> str:
        extras = {
            key: value
            for key, value in record.__dict__.items()
            if key not in _STANDARD and key not in ("message", "asctime")
        }
        return " ".join([super().format(record), *(f"{key}={value!r}" for key, value in extras.items())])


def log_to_stderr(level: str) -> None:
    """Log what is at least as severe as ``level``; of other libraries only what is wrong.

    What they tell of their usual work may have secrets in it, such as the queries of addresses.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("torpor").setLevel(level)
