"""One function's scaling over time: samples in, decisions out. Pure: the time comes with each sample."""

from __future__ import annotations

import math

from torpor.scaling.kpa import Decision, Observed, Rules, State, decide
from torpor.scaling.load import Load
from torpor.scaling.windows import Window


class Scaler:
    """Keeps the windows and the state of one function that is sampled about every ``tick_seconds``.

    Concurrency is a gauge that is read once a tick: requests that begin and end between two readings are not
    seen in it. They are in the total, so each of them still keeps the function from being idle.
    """

    def __init__(self, rules: Rules, tick_seconds: float, now: float, running: int = 0) -> None:
        self.rules = rules
        self.replicas = rules.bounded(max(rules.initial_scale, rules.min_scale, running))
        self.decision = Decision(self.replicas, "declared", panicking=False, observed=None)
        self._tick_seconds = tick_seconds
        self._state = State()
        # At zero from the start, there is no last instance to keep for a while.
        self._active_at = now if self.replicas > 0 else -math.inf
        self._sampled_at = now
        self._total: int | None = None
        self._make_windows()

    def follow(self, rules: Rules, now: float) -> int:
        """Go on by other rules, and anew from their initial scale; how many instances there should be."""
        if rules != self.rules:
            windows = (self.rules.window_seconds, self.rules.panic_window_seconds, self.rules.metric)
            self.rules = rules
            if windows != (rules.window_seconds, rules.panic_window_seconds, rules.metric):
                self._make_windows()
        self._state = State()
        replicas = rules.bounded(max(self.replicas, rules.initial_scale))
        if replicas > 0:
            self._active_at = now
        return self._decided(Decision(replicas, "declared", panicking=False, observed=None))

    def wake(self, now: float) -> int:
        """There is a request and maybe no instance; how many instances there should be now."""
        self._active_at = now
        if self.replicas == 0:
            self._state = State(initial_reached=True)
            self._sampled_at = now
            self._make_windows()  # what was before the rest would make what waits look smaller
            woken = self.rules.bounded(1)
            self._decided(Decision(woken, "woken by a request", panicking=False, observed=None))
        return self.replicas

    def sample(self, now: float, load: Load | None, ready: int) -> int:
        """Take in a sample, ``None`` if there was no traffic; how many instances there should be now."""
        load = load or Load(0.0, self._total or 0)
        arrived = self._arrived(load)
        elapsed = max(now - self._sampled_at, self._tick_seconds)
        waits = self.rules.metric == "lag" and load.backlog > 0
        if arrived > 0 or load.concurrency > 0 or waits:
            self.wake(now)  # what rests may serve before anybody asks for it
        self._sampled_at = now
        by_metric = {"rps": arrived / elapsed, "lag": self.rules.lag(load)}
        value = by_metric.get(self.rules.metric, load.concurrency)
        self._stable.record(now, value)
        self._panic.record(now, value)
        stable, panic = self._stable.average(now), self._panic.average(now)
        if stable is None or panic is None:  # not after a sample at the same time
            return self.replicas
        observed = Observed(stable, panic, ready, self._active_at)
        self._state, decision = decide(self.rules, self._state, observed, now)
        return self._decided(decision)

    def _arrived(self, load: Load) -> int:
        before, self._total = self._total, load.requests_total
        if before is None:
            return 0
        return load.requests_total - before if load.requests_total >= before else load.requests_total

    def _decided(self, decision: Decision) -> int:
        self.decision = decision
        self.replicas = decision.replicas
        return self.replicas

    def _make_windows(self) -> None:
        # A panic window has one sample at least, however short it is.
        self._stable = Window(self.rules.window_seconds, self._tick_seconds)
        self._panic = Window(self.rules.panic_window_seconds, self._tick_seconds)
