"""Whether an event is for a trigger. Pure.

Source: CloudEvents Subscriptions API 1.0, section 3.2.4 (filter dialects), as Knative's triggers have it: all
filters of a trigger must match. An attribute that the event does not have matches nothing; texts are compared
as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.spec.models import Filter

Attributes = Mapping[str, str]
_Test = Callable[[Attributes], bool]
_MOST_TYPES = 64


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an event matches, and in words which condition decided."""

    matches: bool
    reason: str


class Matcher:
    """The filters of one trigger, compiled once."""

    def __init__(self, filters: Sequence[Filter]) -> None:
        self._filters = tuple(filters)
        self._tests = tuple(_compile(item) for item in filters)

    def matches(self, attributes: Attributes) -> bool:
        """Whether all filters match; true when there are none."""
        return all(test(attributes) for test in self._tests)

    def judge(self, attributes: Attributes) -> Verdict:
        """The same with its reason, for people who ask where an event went."""
        for index, item in enumerate(self._filters):
            verdict = _judge(item, attributes)
            if not verdict.matches:
                return Verdict(False, f"filter {index + 1}: {verdict.reason}")
        if not self._filters:
            return Verdict(True, "there are no filters")
        return Verdict(True, f"all {len(self._filters)} filters match")

    def types(self) -> frozenset[str] | None:
        """The only event types that can match, where the filters name them; ``None`` when any type might.

        A broker that can select by type need not hand out the rest.
        """
        types = _meet([_types(item) for item in self._filters])
        return types if types and len(types) <= _MOST_TYPES else None


def _compile(item: Filter) -> _Test:
    if item.exact is not None:
        wanted = tuple(item.exact.items())
        return lambda attributes: all(attributes.get(name) == value for name, value in wanted)
    if item.prefix is not None:
        starts = tuple(item.prefix.items())
        return lambda attributes: all(
            name in attributes and attributes[name].startswith(value) for name, value in starts
        )
    if item.suffix is not None:
        ends = tuple(item.suffix.items())
        return lambda attributes: all(
            name in attributes and attributes[name].endswith(value) for name, value in ends
        )
    if item.all is not None:
        every = tuple(_compile(inner) for inner in item.all)
        return lambda attributes: all(test(attributes) for test in every)
    if item.any is not None:
        some = tuple(_compile(inner) for inner in item.any)
        return lambda attributes: any(test(attributes) for test in some)
    if item.not_ is not None:
        inner = _compile(item.not_)
        return lambda attributes: not inner(attributes)
    raise ValueError("a filter has no dialect")  # the model refuses it


def _judge(item: Filter, attributes: Attributes) -> Verdict:
    if item.exact is not None:
        return _judge_texts(item.exact, attributes, "is", str.__eq__)
    if item.prefix is not None:
        return _judge_texts(item.prefix, attributes, "starts with", str.startswith)
    if item.suffix is not None:
        return _judge_texts(item.suffix, attributes, "ends with", str.endswith)
    if item.not_ is not None:
        inner = _judge(item.not_, attributes)
        return Verdict(not inner.matches, f"not ({inner.reason})")
    if item.all is not None:
        verdicts = [_judge(each, attributes) for each in item.all]
        decisive = [verdict for verdict in verdicts if not verdict.matches]
    else:
        verdicts = [_judge(each, attributes) for each in item.any or ()]
        decisive = [verdict for verdict in verdicts if verdict.matches]
    matches = (item.all is not None) != bool(decisive)
    shown = decisive[:1] or verdicts
    return Verdict(matches, "; ".join(verdict.reason for verdict in shown))


def _judge_texts(
    wanted: Mapping[str, str], attributes: Attributes, how: str, test: Callable[[str, str], bool]
) -> Verdict:
    for name, value in wanted.items():
        if name not in attributes:
            return Verdict(False, f"attribute '{name}' is missing")
        if not test(attributes[name], value):
            return Verdict(
                False, f"attribute '{name}' is {attributes[name]!r}, which is not: {how} {value!r}"
            )
    return Verdict(True, ", ".join(f"attribute '{name}' {how} {value!r}" for name, value in wanted.items()))


def _types(item: Filter) -> frozenset[str] | None:
    if item.exact is not None:
        return frozenset([item.exact["type"]]) if "type" in item.exact else None
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
