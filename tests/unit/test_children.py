"""How the end of a program is said."""

from __future__ import annotations

import pytest

from torpor.children import describe_exit


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exited with status 0"),
        (1, "exited with status 1"),
        (-9, "was killed by SIGKILL"),
        (-99, "was killed by signal 99"),
    ],
)
def test_an_end_is_said_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words
