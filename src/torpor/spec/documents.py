"""YAML (1.2, core schema) as plain values, with the line of every field, and bounded in every way.

ruamel.yaml reads the syntax; values are built here, from its events, so that a key given twice is seen,
aliases can't multiply a small file into a large value, and nesting has an end. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from torpor.spec.faults import FieldPath, field_name
from torpor.spec.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 256 * 1024
MAX_VALUES = 10_000
MAX_DEPTH = 32

_CORE_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "null", "seq", "map")}
_TEXT_TAGS = {"tag:yaml.org,2002:str", "!"}
_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]{1,100}\Z")
_OTHER_BASE = re.compile(r"0(o[0-7]{1,100}|x[0-9a-fA-F]{1,100})\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,100}|[0-9]{1,100}(\.[0-9]{0,100})?)([eE][-+]?[0-9]{1,10})?\Z")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPECIAL_FLOAT = re.compile(r"([-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")


@dataclass(frozen=True, slots=True)
class Defect:
    """What is wrong with the YAML itself. ``field`` is empty where it is about the syntax."""

    line: int
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its value, and the line of each field by path; the empty path has the document's own.

    ``empty`` are the fields whose value is null.
    """

    value: Any
    lines: dict[FieldPath, int]
    empty: frozenset[FieldPath]


@dataclass(slots=True)
class _Node:
    line: int
    content: Any  # a scalar's value, a list of nodes, or a list of pairs of nodes
    kind: type[Event]
    size: int = 1  # values in it, aliases followed
    height: int = 1


class _DefectError(Exception):
    def __init__(self, line: int, message: str, name: str = "YAML") -> None:
        super().__init__(message)
        self.defect = Defect(line, name, message)


def parse(content: bytes) -> tuple[list[Document], list[Defect]]:
    """The documents in ``content`` that could be read, empty ones left out, and what was wrong with it."""
    documents: list[Document] = []
    defects: list[Defect] = []
    if len(content) > MAX_BYTES:
        return [], [Defect(1, "YAML", f"is larger than {MAX_BYTES // 1024} KiB, a smaller file was expected")]
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return [], [
            Defect(line, "YAML", f"has the byte 0x{content[error.start]:02x}, UTF-8 text was expected")
        ]
    try:
        for root in _Composer(iter(YAML(typ="safe", pure=True).parse(text))).roots():
            reader = _Reader()
            value = reader.read(root, ())
            defects += reader.defects
            if value is not None:
                documents.append(Document(value, {**reader.lines, (): root.line}, frozenset(reader.empty)))
    except _DefectError as error:
        defects.append(error.defect)
    except MarkedYAMLError as error:
        defects.append(_syntax(error))
    except (YAMLError, ValueError) as error:  # characters that YAML forbids; escapes beyond Unicode
        defects.append(Defect(1, "YAML", f"{_first_line(str(error))}, printable text was expected"))
    return documents, defects


def _syntax(error: MarkedYAMLError) -> Defect:
    mark = error.problem_mark or error.context_mark
    problem = _first_line(error.problem or str(error))
    context = f" {_first_line(error.context)}" if error.context else ""
    # What a cron expression meets that is not quoted.
    quoting = "alias" in context or "'@' that cannot start" in problem
    hint = ": quote a text that begins with such a character" if quoting else ""
    return Defect(mark.line + 1 if mark else 1, "YAML", f"{problem}{context}, valid YAML was expected{hint}")


def _first_line(text: str) -> str:
    return shown(text.partition("\n")[0])[1:-1]


# --- events to nodes ---


@dataclass(slots=True)
class _Composer:
    """Makes the nodes of one file."""

    events: Iterator[Event]
    anchors: dict[str, _Node] = field(default_factory=dict)
    values: int = 0

    def roots(self) -> Iterator[_Node]:
        """The root node of each document."""
        for event in self.events:
            if isinstance(event, DocumentStartEvent):
                self.anchors.clear()
                yield self._node(next(self.events), 1)

    def _node(self, event: Event, depth: int) -> _Node:
        line = event.start_mark.line + 1
        if isinstance(event, ScalarEvent | CollectionStartEvent):
            node = self._content(event, line, depth)
        else:
            node = self._alias(cast("AliasEvent", event), line)
        if depth + node.height - 1 > MAX_DEPTH:
            raise _DefectError(line, f"is nested deeper than {MAX_DEPTH} levels, fewer were expected")
        return node

    def _count(self, size: int, line: int) -> None:
        self.values += size
        if self.values > MAX_VALUES:
            raise _DefectError(
                line, f"has more than {MAX_VALUES} values, aliases followed; fewer were expected"
            )

    def _alias(self, event: AliasEvent, line: int) -> _Node:
        target = self.anchors.get(event.anchor)
        if target is None:
            hint = "" if event.anchor.isalnum() else ": quote a text that begins with '*'"
            raise _DefectError(
                line, f"refers to {shown(event.anchor)}, an anchor above it was expected{hint}"
            )
        self._count(target.size, line)
        return _Node(line, target.content, target.kind, target.size, target.height)

    def _content(self, event: ScalarEvent | CollectionStartEvent, line: int, depth: int) -> _Node:
        self._count(1, line)
        if depth > MAX_DEPTH:
            raise _DefectError(line, f"is nested deeper than {MAX_DEPTH} levels, fewer were expected")
        if event.tag is not None and str(event.tag) not in _CORE_TAGS | _TEXT_TAGS:
            raise _DefectError(line, f"has the tag {shown(str(event.tag))}, none was expected")
        if isinstance(event, ScalarEvent):
            if _SURROGATE.search(event.value):
                raise _DefectError(line, "escapes half of a surrogate pair, whole characters were expected")
            node = _Node(line, _scalar(event), ScalarEvent)
        elif isinstance(event, SequenceStartEvent):
            children = list(self._children(SequenceEndEvent, depth))
            node = _collection(line, children, children, SequenceStartEvent)
        else:  # the start of a mapping
            children = list(self._children(MappingEndEvent, depth))
            pairs = list(zip(children[::2], children[1::2], strict=True))
            node = _collection(line, pairs, children, MappingStartEvent)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        return node

    def _children(self, end: type[Event], depth: int) -> Iterator[_Node]:
        for event in self.events:
            if isinstance(event, end):
                return
            yield self._node(event, depth + 1)


def _collection(line: int, content: list[Any], children: list[_Node], kind: type[Event]) -> _Node:
    size = 1 + sum(child.size for child in children)
    height = 1 + max((child.height for child in children), default=0)
    return _Node(line, content, kind, size, height)


def _scalar(event: ScalarEvent) -> Any:
    text: str = event.value
    if (event.tag is not None and str(event.tag) in _TEXT_TAGS) or not (event.implicit[0] or event.tag):
        return text
    return resolve(text)


def resolve(text: str) -> str | int | float | bool | None:
    """The value of a plain scalar (YAML 1.2, section 10.3.2); a number too long to be meant stays a text."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.match(text):
        return int(text)
    if _OTHER_BASE.match(text):
        return int(text, 0)
    if _FLOAT.match(text):
        return float(text)
    if _SPECIAL_FLOAT.match(text):
        return float(text.lower().replace(".", ""))
    return text


# --- nodes to values ---


@dataclass(slots=True)
class _Reader:
    lines: dict[FieldPath, int] = field(default_factory=dict)
    empty: set[FieldPath] = field(default_factory=set)
    defects: list[Defect] = field(default_factory=list)

    def read(self, node: _Node, path: FieldPath) -> Any:
        if node.kind is MappingStartEvent:
            return self._mapping(node, path)
        if node.kind is SequenceStartEvent:
            values = []
            for index, child in enumerate(node.content):
                self.lines[*path, index] = child.line
                values.append(self.read(child, (*path, index)))
            return values
        if node.content is None:
            self.empty.add(path)
        return node.content

    def _mapping(self, node: _Node, path: FieldPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, child in node.content:
            if key.kind is not ScalarEvent:
                self._defect(key.line, path, "has a list or mapping as a key, a text was expected")
                continue
            name = key.content if isinstance(key.content, str) else _key(key.content)
            inner = (*path, name)
            if name in values:
                self._defect(
                    key.line, inner, f"is given twice, first in line {self.lines[inner]}; once was expected"
                )
                continue
            self.lines[inner] = key.line
            values[name] = self.read(child, inner)
        return values

    def _defect(self, line: int, path: FieldPath, message: str) -> None:
        self.defects.append(Defect(line, field_name(path) or "document", message))


def _key(value: float | bool | None) -> str:
    """A key that is no text, as the text that it was most likely meant as."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
