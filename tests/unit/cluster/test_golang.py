"""Which Go builds the cluster's programs."""

from __future__ import annotations

import pytest

from tests.cluster.golang import LEAST, version


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26)),
        ("go version go1.19.8 linux/amd64", (1, 19)),
        ("go version go1.30rc1 darwin/arm64", (1, 30)),
        ("gcc (Debian) 12", ()),
        ("", ()),
    ],
)
def test_reads_its_version(said: str, expected: tuple[int, ...]) -> None:
    assert version(said) == expected


def test_what_is_none_is_too_old() -> None:
    assert LEAST > ()
    assert LEAST > (1, 9)
