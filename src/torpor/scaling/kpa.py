"""How many instances there should be: Knative's autoscaler (KPA), as one pure function.

Sources: knative/serving, ``pkg/autoscaler/scaling`` (windows, panic, rates, delay) and
``pkg/reconciler/autoscaling/kpa`` (bounds, initial scale, scale to zero). It decides in this order:

1. need: what was measured over the stable and the panic window, by what one instance should bear; within the
rates at which the number may change from the instances that are ready; 2. panic: from the moment the panic
window needs a multiple of what is ready, and until a stable window after the last such moment, the number
never falls; 3. delay: a lower number applies once it has been enough for the scale-down delay; 4. zero: the
last instance goes no earlier than a stable window and the grace period after the last request; 5. bounds:
the initial scale until it was reached once, then the least and the most that were declared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.scaling.load import Load
    from torpor.spec.models import FunctionSpec

# Knative's defaults, max-scale-up-rate and max-scale-down-rate.
MAX_SCALE_UP_RATE = 1000.0
MAX_SCALE_DOWN_RATE = 2.0
# Averages of floating-point samples miss a whole number by this much and must not cost an instance.
_ROUNDING = 1e-6
_NAMES = {"concurrency": "concurrent requests", "rps": "requests per second", "lag": "waiting events"}


@dataclass(frozen=True, slots=True)
class Rules:
    """What a function declares, in the form that is computed with. ``target`` is after utilization."""

    metric: str
    target: float
    min_scale: int
    max_scale: int
    initial_scale: int
    window_seconds: float
    panic_window_seconds: float
    panic_threshold: float
    scale_down_delay_seconds: float
    grace_seconds: float
    target_age_seconds: float | None = None

    @classmethod
    def of(cls, spec: FunctionSpec) -> Rules:
        """The rules that ``spec`` declares."""
        scaling = spec.scaling
        return cls(
            metric=scaling.metric,
            target=spec.target * scaling.target_utilization_percentage / 100,
            min_scale=scaling.min_scale,
            max_scale=scaling.max_scale,
            initial_scale=scaling.initial_scale,
            window_seconds=scaling.window_seconds,
            panic_window_seconds=scaling.window_seconds * scaling.panic_window_percentage / 100,
            panic_threshold=scaling.panic_threshold_percentage / 100,
            scale_down_delay_seconds=scaling.scale_down_delay_seconds,
            grace_seconds=scaling.scale_to_zero_grace_period_seconds,
            target_age_seconds=scaling.target_age_seconds,
        )

    def lag(self, load: Load) -> float:
        """What waits, each event as often as the oldest has waited the target age, and once at least.

        The age grows for as long as more comes than is taken, so that in the end there are instances enough;
        and whatever the age is, little that waits needs few.
        """
        if self.target_age_seconds is None:
            return float(load.backlog)
        return load.backlog * max(1.0, load.oldest_seconds / self.target_age_seconds)

    def bounded(self, replicas: int) -> int:
        """``replicas`` within what is declared."""
        return min(max(replicas, self.min_scale), self.max_scale)


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known at one moment.

    ``stable`` and ``panic`` are the metric's averages over the windows, for all instances together;
    ``ready`` is how many instances there are; ``active_at`` is when a request, or the wish for one, was last
    seen.
    """

    stable: float
    panic: float
    ready: int
    active_at: float


@dataclass(frozen=True, slots=True)
class State:
    """What one decision hands on to the next.

    ``panic_at`` is when the panic threshold was last crossed, ``None`` when not panicking, and
    ``panic_most`` the most instances since panic began. ``recent`` are times and numbers, falling, within
    the scale-down delay.
    """

    panic_at: float | None = None
    panic_most: int = 0
    recent: tuple[tuple[float, int], ...] = ()
    initial_reached: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """How many instances there should be, and why, in words."""

    replicas: int
    reason: str
    panicking: bool
    observed: float | None


def decide(rules: Rules, state: State, observed: Observed, now: float) -> tuple[State, Decision]:
    """The decision at ``now`` (monotonic seconds, as all times here), and the state for the next one."""
    stable, panic = _needs(rules, observed)
    state = _panic(rules, state, observed, now)
    reason = _describe(rules, observed)
    replicas = stable
    if state.panic_at is not None:
        replicas = max(stable, panic, state.panic_most)
        state = replace(state, panic_most=replicas)
        reason = f"panicking: {_describe_panic(rules, observed)}"
    state, delayed = _delay(rules, state, replicas, now)
    if delayed > replicas:
        replicas, reason = delayed, f"{reason}; fewer only after scaleDownDelay"
    replicas, reason = _keep_last(rules, observed, replicas, now, reason)
    state, replicas, reason = _bound(rules, state, observed, replicas, reason)
    return state, Decision(replicas, reason, state.panic_at is not None, observed.stable)


def _need(value: float, target: float) -> int:
    return math.ceil(value / target - _ROUNDING)


def _needs(rules: Rules, observed: Observed) -> tuple[int, int]:
    ready = max(1, observed.ready)
    most = math.ceil(MAX_SCALE_UP_RATE * ready)
    least = math.floor(ready / MAX_SCALE_DOWN_RATE)
    return (
        min(max(_need(observed.stable, rules.target), least), most),
        min(max(_need(observed.panic, rules.target), least), most),
    )


def _panic(rules: Rules, state: State, observed: Observed, now: float) -> State:
    if _need(observed.panic, rules.target) / max(1, observed.ready) >= rules.panic_threshold:
        return replace(state, panic_at=now)
    if state.panic_at is not None and now - state.panic_at > rules.window_seconds:
        return replace(state, panic_at=None, panic_most=0)
    return state


def _delay(rules: Rules, state: State, replicas: int, now: float) -> tuple[State, int]:
    """The largest number within the delay; ``recent`` keeps only what can still be it."""
    if rules.scale_down_delay_seconds <= 0:
        return replace(state, recent=()) if state.recent else state, replicas
    since = now - rules.scale_down_delay_seconds
    recent = (
        *((at, number) for at, number in state.recent if at > since and number > replicas),
        (now, replicas),
    )
    return replace(state, recent=recent), recent[0][1]


def _keep_last(rules: Rules, observed: Observed, replicas: int, now: float, reason: str) -> tuple[int, str]:
    if replicas > 0:
        return replicas, reason
    left = observed.active_at + rules.window_seconds + rules.grace_seconds - now
    if left > 0:
        return 1, f"no requests; the last instance stays for {math.ceil(left)} s"
    return 0, "no requests"


def _bound(
    rules: Rules, state: State, observed: Observed, replicas: int, reason: str
) -> tuple[State, int, str]:
    if not state.initial_reached:
        if observed.ready >= rules.initial_scale:
            state = replace(state, initial_reached=True)
        elif replicas < rules.initial_scale:
            replicas, reason = rules.initial_scale, "initialScale is not reached yet"
    bounded = rules.bounded(replicas)
    if bounded > replicas:
        reason = f"{reason}; minScale is {rules.min_scale}"
    elif bounded < replicas:
        reason = f"{reason}; maxScale is {rules.max_scale}"
    return state, bounded, reason


def _describe(rules: Rules, observed: Observed) -> str:
    return _words(rules, observed.stable, rules.window_seconds)


def _describe_panic(rules: Rules, observed: Observed) -> str:
    return _words(rules, observed.panic, rules.panic_window_seconds)


def _words(rules: Rules, value: float, window_seconds: float) -> str:
    name = _NAMES[rules.metric]
    if rules.target_age_seconds is not None:
        name = f"{name} by age (targetAge {rules.target_age_seconds:g} s)"
    return f"{value:.3g} {name} over {window_seconds:g} s, {rules.target:.3g} an instance"
