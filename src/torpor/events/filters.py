"""Whether an event is for a trigger, and why. Pure.

Source: CloudEvents Subscriptions API 1.0, section 3.2.4 (filter dialects), as Knative's triggers have it: all
filters of a trigger must match. What the event does not have matches nothing; texts are compared as they are.
Keys that lead into the data are Torpor's own (:mod:`torpor.spec.datapaths`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from torpor.cesql.expression import Expression
from torpor.events.facts import EventFacts, Facts
from torpor.spec.datapaths import is_path, segments
from torpor.spec.values import shown

if TYPE_CHECKING:
    from torpor.binding import WireEvent
    from torpor.spec.models import Filter

_Test = Callable[[Facts], bool]
_MOST_TYPES = 64
_MOST_REASONS = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an event matches, in words why, and by which attribute that was decided.

    ``attribute`` may be a path into the data; it is empty where none was looked at.
    """

    matches: bool
    reason: str
    attribute: str


class Matcher:
    """The filters of one trigger, compiled once."""

    def __init__(self, filters: Sequence[Filter]) -> None:
        self._filters = tuple(filters)
        self._test = _every([_compile(item) for item in filters])
        keys = {key for item in filters for key in _keys(item)}
        self._paths = {key: segments(key) for key in keys if is_path(key)}
        self.looks_into_data = bool(self._paths)

    def matches(self, event: WireEvent) -> bool:
        """Whether all filters match; true when there are none."""
        facts: Facts = EventFacts(event, self._paths) if self._paths else event.attributes
        return self._test(facts)

    def verdict(self, event: WireEvent) -> Verdict:
        """The same with its reason, for people who ask where an event went."""
        facts = EventFacts(event, self._paths)
        matching = []
        for index, item in enumerate(self._filters):
            verdict = _judge(item, facts, wanted=True)
            if not verdict.matches:
                place = f"filter {index + 1}: " if len(self._filters) > 1 else ""
                return replace(verdict, reason=place + verdict.reason)
            matching.append(verdict)
        return _joined(True, matching) if matching else Verdict(True, "there are no filters", "")

    def types(self) -> frozenset[str] | None:
        """The only event types that can match, where the filters name them; ``None`` when any type might.

        A broker that can select by type need not hand out the rest.
        """
        types = _meet([_types(item) for item in self._filters])
        return types if types and len(types) <= _MOST_TYPES else None


@lru_cache(maxsize=1024)
def _expression(text: str) -> Expression:
    """The expression ``text``, compiled once for all that ask for it; it has no state that one could see."""
    return Expression(text)


def _keys(item: Filter) -> Iterator[str]:
    for texts in (item.exact, item.prefix, item.suffix):
        yield from texts or ()
    for inner in (*(item.all or ()), *(item.any or ()), *((item.not_,) if item.not_ else ())):
        yield from _keys(inner)


# --- whether ---


def _compile(item: Filter) -> _Test:
    if item.sql is not None:
        return _expression(item.sql).matches
    if item.all is not None:
        return _every([_compile(inner) for inner in item.all])
    if item.any is not None:
        return _some([_compile(inner) for inner in item.any])
    if item.not_ is not None:
        inner = _compile(item.not_)
        return lambda facts: not inner(facts)
    texts, fits, _ = _dialect(item)
    return _every([_text(name, value, None if item.exact else fits) for name, value in texts.items()])


def _every(tests: Sequence[_Test]) -> _Test:
    if len(tests) == 1:
        return tests[0]

    def test(facts: Facts) -> bool:
        for each in tests:  # noqa: SIM110 - a generator would take several times as long
            if not each(facts):
                return False
        return True

    return test


def _some(tests: Sequence[_Test]) -> _Test:
    def test(facts: Facts) -> bool:
        for each in tests:  # noqa: SIM110
            if each(facts):
                return True
        return False

    return test


def _text(name: str, value: str, fits: Callable[[str, str], bool] | None) -> _Test:
    """Whether the text of ``name`` is ``value``, or else ``fits`` it."""
    if fits is None:
        return lambda facts: facts.get(name) == value
    return lambda facts: (text := facts.get(name)) is not None and fits(text, value)


# --- why ---


def _judge(item: Filter, facts: EventFacts, *, wanted: bool) -> Verdict:
    """Whether ``item`` is as ``wanted``: below a ``not``, it is wanted not to match."""
    if item.not_ is not None:
        return _judge(item.not_, facts, wanted=not wanted)
    if item.all is not None or item.any is not None:
        inner = (_judge(each, facts, wanted=wanted) for each in item.all or item.any or ())
        return _combine(inner, every=(item.all is not None) == wanted)
    if item.sql is not None:
        return _judge_expression(_expression(item.sql), facts, wanted)
    return _combine(_judge_texts(item, facts, wanted), every=wanted)


def _combine(verdicts: Iterable[Verdict], *, every: bool) -> Verdict:
    """The verdict on several conditions, ``every`` one of which must match, or else any."""
    seen = []
    for verdict in verdicts:
        if verdict.matches != every:
            return verdict
        seen.append(verdict)
    return _joined(every, seen)


def _joined(matches: bool, verdicts: Sequence[Verdict]) -> Verdict:
    reasons = list(dict.fromkeys(verdict.reason for verdict in verdicts))  # several may look at one attribute
    if len(reasons) > _MOST_REASONS:
        reasons[_MOST_REASONS:] = [f"and {len(reasons) - _MOST_REASONS} more"]
    return Verdict(matches, "; ".join(reasons), verdicts[0].attribute)


def _judge_expression(expression: Expression, facts: EventFacts, wanted: bool) -> Verdict:
    reason, attribute = expression.reason(facts)
    return Verdict(expression.matches(facts) == wanted, reason, attribute)


def _judge_texts(item: Filter, facts: EventFacts, wanted: bool) -> Iterator[Verdict]:
    texts, fits, words = _dialect(item)
    for name, value in texts.items():
        text = facts.get(name)
        matches = (text is not None and fits(text, value)) == wanted
        reason = facts.absence(name) if text is None else f"{name} is {shown(text)}"
        if not matches:
            but = "" if wanted else "anything but "
            reason += f", {but}{words}{shown(value)} was expected"
        yield Verdict(matches, reason, name)


def _dialect(item: Filter) -> tuple[Mapping[str, str], Callable[[str, str], bool], str]:
    """The texts that ``item`` wants, how they are compared, and the words for that."""
    if item.exact is not None:
        return item.exact, str.__eq__, ""
    if item.prefix is not None:
        return item.prefix, str.startswith, "a text that starts with "
    return item.suffix or {}, str.endswith, "a text that ends with "


# --- which types ---


def _types(item: Filter) -> frozenset[str] | None:
    if item.exact is not None:
        return frozenset([item.exact["type"]]) if "type" in item.exact else None
    if item.sql is not None:
        return _expression(item.sql).types()
    if item.all is not None:
        return _meet([_types(each) for each in item.all])
    if item.any is not None:
        options = [_types(each) for each in item.any]
        known = [option for option in options if option is not None]
        return frozenset().union(*known) if len(known) == len(options) else None
    return None


def _meet(options: list[frozenset[str] | None]) -> frozenset[str] | None:
    known = [option for option in options if option is not None]
    return frozenset.intersection(*known) if known else None
