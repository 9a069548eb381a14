"""Which request goes where: the route table, as plain data. Pure.

A table belongs to some host names and has rules; a rule covers a path and everything below it. Of the rules
that cover a path, the longest comes first, whatever the order in which functions were declared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torpor.spec.values import RESERVED_PATHS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torpor.spec.models import Function

DEFAULT_NAMESPACE = "default"
Part = Literal["events", "api"]
PARTS: tuple[Part, ...] = ("events", "api")
_PART_PATHS: dict[str, Part] = {"/events": "events", "/async-function": "events", "/api/v1": "api"}


@dataclass(frozen=True, slots=True)
class FunctionRoute:
    """What the gateway has to know of a function."""

    name: str
    namespace: str
    hosts: tuple[str, ...]
    paths: tuple[str, ...]
    methods: tuple[str, ...]
    max_body_bytes: int
    timeout_seconds: float

    @classmethod
    def of(cls, function: Function) -> FunctionRoute:
        """The routing facts of a declared function."""
        http = function.spec.http
        return cls(
            name=function.metadata.name,
            namespace=function.metadata.namespace,
            hosts=http.hosts,
            paths=http.paths,
            methods=http.methods,
            max_body_bytes=http.max_body_bytes,
            timeout_seconds=function.spec.timeout_seconds,
        )

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    def prefixes(self) -> Iterator[str]:
        """Where it always is, below ``/function``."""
        yield f"/function/{self.name}.{self.namespace}"
        if self.namespace == DEFAULT_NAMESPACE:
            yield f"/function/{self.name}"


@dataclass(frozen=True, slots=True)
class Missing:
    """Nothing is served there: 404, or 503 where a part of the platform would be."""

    status: Literal[404, 503]


Target = FunctionRoute | Part | Missing


@dataclass(frozen=True, slots=True)
class Rule:
    """Requests for ``prefix`` and below go to ``target``; the empty prefix is every path.

    With ``strip`` the target does not see the prefix.
    """

    prefix: str
    target: Target
    strip: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """The rules of some hosts; ``*`` stands for all hosts that no other table names."""

    name: str
    hosts: tuple[str, ...]
    rules: tuple[Rule, ...]

    def chains(self) -> Iterator[tuple[Rule, ...]]:
        """For each rule: the rules to look at, in order, for a path that begins with its prefix.

        When none fits there is nothing; so the rules end where a wider one would say just that.
        """
        by_prefix = {rule.prefix: rule for rule in self.rules}
        for rule in self.rules:
            chain = [rule]
            for prefix in _parents(rule.prefix):
                wider = by_prefix.get(prefix)
                if wider is not None:
                    if wider.target == Missing(404):
                        break
                    chain.append(wider)
            yield tuple(chain)


def _parents(prefix: str) -> Iterator[str]:
    while prefix:
        prefix = prefix.rpartition("/")[0]
        yield prefix


def tables(routes: Iterable[FunctionRoute], *, parts: Iterable[Part], domain: str) -> list[Table]:
    """All tables. ``parts`` are the parts of the platform that are there, ``domain`` is where functions live.

    A host and path that two functions claim goes to the one whose key comes first.
    """
    ordered = sorted(routes, key=lambda route: route.key)
    everywhere = [Rule(_plain(path), route) for route in ordered if not route.hosts for path in route.paths]
    own = {f"{route.name}.{route.namespace}.{domain}": route for route in ordered}
    named: dict[str, list[Rule]] = {}
    for route in ordered:
        for host in route.hosts:
            if host not in own:
                rules = named.setdefault(host, [])
                rules.extend(Rule(_plain(path), route) for path in route.paths or ("",))
    return [
        Table("everywhere", ("*",), _distinct([*_platform(set(parts)), *_functions(ordered), *everywhere])),
        *(Table(host, (host,), (Rule("", route),)) for host, route in own.items()),
        *(Table(host, (host,), _distinct([*rules, *everywhere])) for host, rules in sorted(named.items())),
    ]


def _plain(path: str) -> str:
    return "" if path == "/" else path


def _functions(ordered: Iterable[FunctionRoute]) -> Iterator[Rule]:
    for route in ordered:
        for prefix in route.prefixes():
            yield Rule(prefix, route, strip=True)


def _platform(parts: set[Part]) -> Iterator[Rule]:
    for path, part in _PART_PATHS.items():
        yield Rule(path, part if part in parts else Missing(503))
    for path in RESERVED_PATHS:
        if path not in _PART_PATHS:
            yield Rule(path, Missing(404))


def _distinct(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The first rule of each prefix: what comes after it could never be reached."""
    found: dict[str, Rule] = {}
    for rule in rules:
        found.setdefault(rule.prefix, rule)
    return tuple(found.values())
