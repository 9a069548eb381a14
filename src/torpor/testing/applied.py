"""Who owns which field of an object: server-side apply and merge patches as pure functions.

A field's path ends at a value or at a list; lists whose entries have names (conditions, containers, and so
on) are gone into, as Kubernetes' schemas say. Source: kubernetes.io, "Server-Side Apply".
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torpor.providers.kubernetes.resources import Object

Path = tuple[str, ...]
Owned = dict[tuple[str, str], frozenset[Path]]
"""Paths by manager and how it wrote: ``apply`` or ``update``, and ``apply:status`` for a subresource's."""

_KEYS = {
    "conditions": "type",
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
}
_UNOWNED = frozenset((("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")))


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every field of ``value`` that can have an owner, and what it has."""
    if isinstance(value, dict) and (value or not path):
        for name, inner in value.items():
            yield from leaves(inner, (*path, name))
    elif isinstance(value, list) and path and path[-1] in _KEYS and value:
        for entry in value:
            yield from leaves(entry, (*path, f"[{entry[_KEYS[path[-1]]]}]"))
    else:
        yield path, value


def apply(
    before: Object, owned: Owned, manager: str, part: Object, subresource: str, *, force: bool
) -> tuple[Object, Owned, str]:
    """What an apply makes of ``before``, who owns what then, and what forbids it, if anything does."""
    mine = (manager, f"apply:{subresource}" if subresource else "apply")
    wanted = {
        path: value for path, value in leaves(part) if path not in _UNOWNED and path[0] != "metadata"
    } | {
        path: value
        for path, value in leaves({"metadata": part.get("metadata", {})})
        if len(path) > 2 or path[-1] in ("finalizers", "ownerReferences")
    }
    current = dict(leaves(before))
    taken: Owned = {}
    for who, paths in owned.items():
        clashing = {
            path for path in paths & wanted.keys() if who != mine and current.get(path) != wanted[path]
        }
        if clashing and not force:
            where = ".".join(min(clashing))
            return before, owned, f'conflict with "{who[0]}": .{where}'
        taken[who] = paths - clashing
    after = copy.deepcopy(before)
    others = frozenset[Path]().union(*(paths for who, paths in taken.items() if who != mine))
    # An entry is found by its name: that goes last.
    for path in sorted(taken.get(mine, frozenset()) - wanted.keys() - others, key=_is_name):
        _remove(after, path)
    for path, value in wanted.items():
        _set(after, path, copy.deepcopy(value))
    return after, {**taken, mine: frozenset(wanted)}, ""


def changed(
    owned: Owned, manager: str, before: Mapping[str, Any], after: Mapping[str, Any], *, applied: bool = False
) -> Owned:
    """Who owns what after ``manager`` made ``after`` of ``before``: it has what it changed."""
    old, new = dict(leaves(before)), dict(leaves(after))
    paths = {
        path
        for path, value in new.items()
        if path not in _UNOWNED and (path not in old or old[path] != value)
    }
    gone = old.keys() - new.keys()
    kept = {who: theirs - paths - gone for who, theirs in owned.items()}
    mine = (manager, "apply" if applied else "update")
    return {**kept, mine: kept.get(mine, frozenset()) | paths}


def merge(target: Any, patch: Any) -> Any:
    """``target`` with ``patch`` merged in (RFC 7396)."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = copy.deepcopy(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def _is_name(path: Path) -> bool:
    return len(path) > 2 and path[-2].startswith("[") and path[-1] == _KEYS.get(path[-3])


def _entry(items: list[Any], key: str, name: str) -> int | None:
    return next((index for index, item in enumerate(items) if str(item.get(key)) == name[1:-1]), None)


def _set(target: Any, path: Path, value: Any) -> None:
    for index, name in enumerate(path[:-1]):
        target = _into(target, name, path[index - 1] if index else "", path[index + 1])
    last = path[-1]
    target[last] = value


def _into(target: Any, name: str, above: str, below: str) -> Any:
    if isinstance(target, list):
        key = _KEYS[above]
        index = _entry(target, key, name)
        if index is None:
            target.append({key: name[1:-1]})
            index = len(target) - 1
        return target[index]
    empty: Any = [] if below.startswith("[") else {}
    if not isinstance(target.get(name), type(empty)):
        target[name] = empty
    return target[name]


def _remove(target: Any, path: Path) -> None:
    """Take the field at ``path`` away, and what it leaves empty."""
    trail: list[tuple[Any, Any]] = []
    for index, name in enumerate(path):
        step: Any = name
        if isinstance(target, list):
            step = _entry(target, _KEYS[path[index - 1]], name)
        if step is None or (isinstance(target, dict) and step not in target):
            return
        trail.append((target, step))
        target = target[step]
    container, step = trail.pop()
    del container[step]
    while trail and not container:
        container, step = trail.pop()
        del container[step]
