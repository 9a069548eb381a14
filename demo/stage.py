"""Where the acts are played: a platform that runs, on this machine or in a cluster."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Protocol

from ruamel.yaml import YAML

from demo.errors import DemoError
from torpor.testing.running import Running

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Any, Self

    from torpor.api.client import Client

_CHANGED = ("images", "mailer")


class Stage(Protocol):
    """A platform with the functions of the acts, which run while its block is entered."""

    url: str
    """Where callers reach the gateway."""
    host: str
    """The address of this machine as functions reach it."""

    def client(self) -> Client:
        """A new client of its REST API."""
        ...

    def look(self) -> None:
        """Take note of what runs, so that at the end it can be told what is left."""
        ...

    def change(self, function: str, edit: Callable[[dict[str, Any]], None]) -> None:
        """Declare a function anew, with its ``spec`` as ``edit`` leaves it; returns once it holds."""
        ...

    def end(self) -> None:
        """End everything. Raises :class:`DemoError` when it does not end well."""
        ...

    def left(self) -> int:
        """How many processes or pods are left of it."""
        ...


class Laptop:
    """``torpor up`` on this machine, with the examples below ``functions`` and its data in ``folder``."""

    host = "127.0.0.1"

    def __init__(self, functions: Path, folder: Path) -> None:
        self._folders = copies(functions, folder)
        self._running = Running([functions / "greeter", *self._folders], folder / "platform")
        self.url = ""

    def __enter__(self) -> Self:
        self._running.__enter__()
        self.url = self._running.url
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._running.stop()

    def client(self) -> Client:
        """See :class:`Stage`."""
        return self._running.client()

    def look(self) -> None:
        """See :class:`Stage`."""
        self._running.census.take()

    def change(self, function: str, edit: Callable[[dict[str, Any]], None]) -> None:
        """See :class:`Stage`."""
        told = len(self._running.news)
        change(self._folders, function, edit)
        self._running.wait_for("loaded", after=told)

    def end(self) -> None:
        """See :class:`Stage`."""
        code = self._running.stop()
        if code != 0:
            raise DemoError(f"torpor up ended with exit code {code}")

    def left(self) -> int:
        """See :class:`Stage`."""
        return len(self._running.census.left())


def copies(functions: Path, to: Path) -> list[Path]:
    """Copies of the examples that are changed in the course of the acts."""
    without = shutil.ignore_patterns("__pycache__", "photo", "test_*")
    return [shutil.copytree(functions / name, to / name, ignore=without) for name in _CHANGED]


def change(folders: Sequence[Path], function: str, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edit the ``spec`` that a file in one of ``folders`` declares for ``function``."""
    yaml = YAML()
    for folder in folders:
        path = folder / "function.yaml"
        documents = list(yaml.load_all(path.read_text("utf-8")))
        for document in documents:
            if document["kind"] == "Function" and document["metadata"]["name"] == function:
                edit(document["spec"])
                changed = path.with_suffix(".new")
                with changed.open("w", encoding="utf-8") as file:
                    yaml.dump_all(documents, file)
                changed.replace(path)
                return
    raise DemoError(f"no function {function!r} is declared in the examples")
