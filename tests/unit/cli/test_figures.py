from __future__ import annotations

import pytest

from torpor.cli.figures import duration, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0.9, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (125, "2m 5s"),
        (3600, "1h"),
        (3_660, "1h 1m"),
        (90_000, "1d 1h"),
        (864_000, "10d"),
    ],
)
def test_durations_have_their_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, None),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (11_744_051, "11.2 MiB"),
        (1024**5, "1024.0 TiB"),
    ],
)
def test_sizes_have_the_largest_unit_that_they_fill(number: int | None, text: str | None) -> None:
    assert size(number) == text
