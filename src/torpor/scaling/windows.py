"""Averages over the last so many seconds, in buckets: pure.

After Knative's bucketed windows, with one difference: there a gap counts as zero, since pods that report
nothing do nothing. Here a gap means that nobody looked, as when the machine was suspended, and says nothing
about the load.
"""

from __future__ import annotations

import math
from collections import deque


class Window:
    """Averages samples over ``window_seconds``: the mean of the means of its buckets.

    A bucket counts once, however many samples fall into it. Until there is a whole window of samples, those
    that there are count. Times must not run backwards.
    """

    def __init__(self, window_seconds: float, bucket_seconds: float) -> None:
        self._bucket_seconds = bucket_seconds
        self._length = max(1, math.ceil(window_seconds / bucket_seconds - 1e-9))
        self._indices: deque[int] = deque()
        self._means: deque[float] = deque()
        self._samples = 0  # in the last bucket

    def record(self, now: float, value: float) -> None:
        """Take in a sample."""
        index = math.floor(now / self._bucket_seconds)
        if self._indices and self._indices[-1] == index:
            self._samples += 1
            self._means[-1] += (value - self._means[-1]) / self._samples
            return
        self._expire(index)
        self._indices.append(index)
        self._means.append(value)
        self._samples = 1

    def average(self, now: float) -> float | None:
        """The average at ``now``; ``None`` when there is no sample in the window."""
        self._expire(math.floor(now / self._bucket_seconds))
        return sum(self._means) / len(self._means) if self._means else None

    def _expire(self, index: int) -> None:
        while self._indices and self._indices[0] <= index - self._length:
            self._indices.popleft()
            self._means.popleft()
