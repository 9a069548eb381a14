"""Where the acts are played: a platform that runs, on this machine or in a cluster."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Protocol

from ruamel.yaml import YAML

from demo.errors import DemoError
from torpor.testing.running import Running

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from torpor.api.client import Client


class Stage(Protocol):
    """A platform with the functions of the acts, which run while its block is entered."""

    url: str
    """Where callers reach the gateway."""

    def client(self) -> Client:
        """A new client of its REST API."""
        ...

    def look(self) -> None:
        """Take note of what runs, so that at the end it can be told what is left."""
        ...

    def limit(self, function: str, most: int) -> None:
        """Declare that a function of the fan-out has ``most`` instances at most."""
        ...

    def end(self) -> None:
        """End everything. Raises :class:`DemoError` when it does not end well."""
        ...

    def left(self) -> int:
        """How many processes or pods are left of it."""
        ...


class Laptop:
    """``torpor up`` on this machine, with the examples below ``functions`` and its data in ``folder``."""

    def __init__(self, functions: Path, folder: Path) -> None:
        self._images = copied(functions / "images", folder / "images")
        self._running = Running([functions / "greeter", self._images], folder / "platform")
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

    def limit(self, function: str, most: int) -> None:
        """See :class:`Stage`."""
        limit(self._images, function, most)

    def end(self) -> None:
        """See :class:`Stage`."""
        code = self._running.stop()
        if code != 0:
            raise DemoError(f"torpor up ended with exit code {code}")

    def left(self) -> int:
        """See :class:`Stage`."""
        return len(self._running.census.left())


def copied(functions: Path, to: Path) -> Path:
    """A copy of an example's folder that may be changed."""
    shutil.copytree(functions, to, ignore=shutil.ignore_patterns("__pycache__", "photo", "test_*"))
    return to


def limit(folder: Path, function: str, most: int) -> None:
    """Change the ``maxScale`` that a file in ``folder`` declares for ``function``."""
    path = folder / "function.yaml"
    yaml = YAML()
    documents = list(yaml.load_all(path.read_text("utf-8")))
    for document in documents:
        if document["kind"] == "Function" and document["metadata"]["name"] == function:
            document["spec"]["scaling"]["maxScale"] = most
    changed = path.with_suffix(".new")
    with changed.open("w", encoding="utf-8") as file:
        yaml.dump_all(documents, file)
    changed.replace(path)
