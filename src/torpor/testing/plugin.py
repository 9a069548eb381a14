"""The pytest plugin: fixtures to test functions with.

It is loaded in every run of pytest, so it imports nothing but pytest.

``client``
    A client for the function in the test's folder (:class:`torpor.testing.client.Client`). Where a folder
    declares several, ``@pytest.mark.torpor_function("split")`` chooses one.
``client_for``
    ``client_for("split")`` is a client for the function of that name; for tests that need more than one.
``platform``
    The functions and triggers of the test's folder, on a whole platform in this process
    (:class:`torpor.testing.platform.Platform`).
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torpor.testing.client import Client
    from torpor.testing.platform import Platform

_MARKER = "torpor_function"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", f"{_MARKER}(name): the function of the folder that `client` calls")


@pytest.fixture
def client_for(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Client]]:
    """Clients for the functions of the test's folder, by name; further arguments are runtime settings."""
    from torpor.testing.client import function_client  # noqa: PLC0415 - only a test that asks for it pays

    with ExitStack() as stack:

        def make(name: str | None = None, **settings: object) -> Client:
            blobs = tmp_path_factory.mktemp("blobs")
            return stack.enter_context(
                function_client(request.path.parent, name, blobs, monkeypatch.setenv, settings)
            )

        yield make


@pytest.fixture
def client(request: pytest.FixtureRequest, client_for: Callable[..., Client]) -> Client:
    """A client for the function of the test's folder."""
    marker = request.node.get_closest_marker(_MARKER)
    return client_for(marker.args[0] if marker is not None else None)


@pytest.fixture
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    """The functions and triggers of the test's folder, on a platform of their own."""
    from torpor.testing.platform import Platform  # noqa: PLC0415

    with Platform(request.path.parent) as running:
        yield running
