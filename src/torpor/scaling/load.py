"""What is observed of one function's traffic."""

from __future__ import annotations

from typing import NamedTuple


class Load(NamedTuple):
    """A sample of one function's traffic, over all its instances.

    ``concurrency`` is how many requests are under way, those that are held included; ``requests_total`` how
    many there have been since the data path started. A total that has become smaller means that it started
    anew.
    """

    concurrency: float
    requests_total: int
