"""From files and folders to what they declare, or to every fault in them.

Reads files, and nothing else: no code of a function is run. A result is whole: either everything below the
paths is right, or nothing is returned.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from torpor.errors import DeclarationError
from torpor.spec.consistency import check_files, check_local, check_routes, check_sinks, check_subscribers
from torpor.spec.discovery import (
    MAX_CODE_BYTES,
    MODULE,
    Discovery,
    Found,
    Module,
    function_name,
    inspect_module,
)
from torpor.spec.documents import MAX_BYTES, Document, parse
from torpor.spec.faults import Fault, FieldPath, did_you_mean, explain, field_name, line_of, printable
from torpor.spec.models import (
    API_VERSION,
    GROUP,
    KINDS,
    Function,
    Metadata,
    Resource,
    Schedule,
    Source,
    Trigger,
)
from torpor.spec.origins import Origin
from torpor.spec.values import FROM_FILE, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_DATA = ("spec", "event", "data")
"""What stands below it is anyone's, and may be null."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What is declared, by key (``namespace/name``). Paths in functions' sources are absolute."""

    functions: dict[str, Function] = field(default_factory=dict)
    triggers: dict[str, Trigger] = field(default_factory=dict)
    schedules: dict[str, Schedule] = field(default_factory=dict)
    origins: dict[tuple[str, str], Origin] = field(default_factory=dict)
    """Where each is declared, by kind and key."""

    def origin(self, resource: Resource) -> Origin:
        """Where ``resource`` is declared."""
        return self.origins[resource.kind, resource.key]


def load(paths: Sequence[Path], *, complete: bool = True, local: bool = False) -> Declared:
    """What the files and folders ``paths`` declare.

    With ``complete``, they are all that there is, so that a trigger can only name a function among them. With
    ``local``, functions are to run on this machine, so that each needs its code and no cluster.
    Raises :class:`~torpor.errors.DeclarationError` with every fault.
    """
    declared, faults = inspect(paths, complete=complete)
    if local and not faults:
        functions = declared.functions.values()
        faults = [fault for one in functions for fault in check_local(one, declared.origin(one))]
    if faults:
        raise DeclarationError([str(fault) for fault in faults])
    return declared


def inspect(paths: Sequence[Path], *, complete: bool = True) -> tuple[Declared, list[Fault]]:
    """As :func:`load`, but returns the faults, by file and line, beside what could be read all the same."""
    discovery = Discovery()
    for path in paths:
        discovery.add(path)
    loader = _Loader(faults=discovery.faults)
    for found in _once(discovery.files):
        loader.add_file(found)
    for module in dict.fromkeys(discovery.modules):
        loader.add_module(module)
    if not (loader.declared.origins or loader.faults):
        loader.faults += [_nothing(path) for path in paths]
    loader.check(complete=complete)
    faults = sorted(dict.fromkeys(loader.faults), key=lambda fault: (fault.file, fault.line or 0))
    return loader.declared, faults


def _once(files: Sequence[Found]) -> list[Found]:
    """``files`` without those that are there already by another path."""
    return list({found.path.resolve(): found for found in reversed(files)}.values())[::-1]


def _nothing(path: Path) -> Fault:
    expected = f"a function.yaml, or a {MODULE} with one @function or a FastAPI app"
    return Fault(printable(path), None, "", f"declares nothing, {expected} was expected")


@dataclass(slots=True)
class _Loader:
    faults: list[Fault]
    declared: Declared = field(default_factory=Declared)
    code: set[Path] = field(default_factory=set)
    """Folders with the code of functions: what is below them is no function of its own."""
    declaring: set[Path] = field(default_factory=set)
    """Folders with a file that declares a function, rightly or not: they say themselves what they are."""
    claimed: set[str] = field(default_factory=set)
    """Names of functions that are declared wrongly: what refers to them is not at fault."""
    unread: bool = False
    """Whether there may be resources in parts of files that could not be read."""

    def add_file(self, found: Found) -> None:
        """Read one YAML file."""
        file = printable(found.path)
        try:
            with found.path.open("rb") as stream:
                content = stream.read(MAX_BYTES + 1)
        except OSError as error:
            self.faults.append(
                Fault(file, None, "", f"can't be read ({error.strerror}), a file was expected")
            )
            return
        documents, defects = parse(content)
        if defects:
            self.faults += [Fault(file, defect.line, defect.field, defect.message) for defect in defects]
            self.declaring.add(found.path.parent.resolve())
            self.unread = True
        if found.whole and not documents and not defects:
            self.faults.append(Fault(file, 1, "", f"declares nothing, {_one_of(KINDS)} was expected"))
        for document in documents:
            if found.whole or _is_ours(document):
                self._add_document(document, found.path, file)

    def _add_document(self, document: Document, path: Path, file: str) -> None:
        faults, model = _identify(document, file)
        if model is Function:
            self.declaring.add(path.parent.resolve())
        if model is not None:
            try:
                resource = model.model_validate(
                    document.value, by_alias=True, by_name=False, context=FROM_FILE
                )
            except ValidationError as error:
                for where, message in explain(error.errors(include_url=False), model):
                    if where not in document.empty and where not in (("apiVersion",), ("kind",)):
                        faults.append(_fault(document, file, where, message))
            else:
                self._add_resource(resource, Origin(path, file, document.lines))
        if faults:
            self.faults += faults
            self.claimed.add(_claimed_name(document))

    def _add_resource(self, resource: Resource, origin: Origin) -> None:
        name = (resource.kind, resource.key)
        if name in self.declared.origins:
            other = self.declared.origins[name]
            message = (
                f"{resource.kind} {resource.key!r} is declared already at {other}, another name was expected"
            )
            self.faults.append(origin.fault(("metadata", "name"), message))
            return
        self.declared.origins[name] = origin
        if isinstance(resource, Trigger):
            self.declared.triggers[resource.key] = resource
            return
        if isinstance(resource, Schedule):
            self.declared.schedules[resource.key] = resource
            return
        absolute = _absolute(resource, origin.path.parent)
        if not absolute.spec.image_only:
            self.code.add(absolute.spec.code.path)
        self.declared.functions[resource.key] = absolute

    def add_module(self, path: Path) -> None:
        """Take a ``main.py`` for a function, unless its folder belongs to one that is declared."""
        folder = path.parent.resolve()
        if folder in self.declaring or not self.code.isdisjoint((folder, *folder.parents)):
            return
        file = printable(path)
        try:
            with path.open("rb") as stream:
                code = stream.read(MAX_CODE_BYTES + 1)
        except OSError as error:
            self.faults.append(
                Fault(file, None, "", f"can't be read ({error.strerror}), a module was expected")
            )
            return
        module = inspect_module(code, file)
        if isinstance(module, Fault):
            self.faults.append(module)
            self.unread = True
        elif module is not None:
            self._add_implicit(module, path, folder, file)

    def _add_implicit(self, module: Module, path: Path, folder: Path, file: str) -> None:
        name = function_name(folder)
        if len(module.functions) > 1:
            names = ", ".join(sorted(module.functions))
            expected = "one was expected, or a function.yaml that declares each with its handler"
            self.faults.append(Fault(file, module.line, "", f"holds the functions {names}, {expected}"))
            self.unread = True
        elif name is None:
            problem = f"the folder's name {shown(folder.name)} gives the function no name"
            self.faults.append(
                Fault(file, module.line, "", f"{problem}, a function.yaml that does was expected")
            )
        else:
            self._add_resource(Function(metadata=Metadata(name=name)), Origin(path, file, {(): module.line}))

    def check(self, *, complete: bool) -> None:
        """Find what is wrong between the resources, and between them and the files that they name."""
        declared = self.declared
        for function in declared.functions.values():
            if not function.spec.image_only:
                self.faults += check_files(function, declared.origin(function))
        self.faults += check_routes(declared.functions.values(), declared.origin)
        if complete and not self.unread:
            self.faults += check_subscribers(
                declared.triggers.values(), declared.functions, self.claimed, declared.origin
            )
            self.faults += check_sinks(declared.triggers.values(), self.claimed, declared.origin)


def _one_of(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"


def _claimed_name(document: Document) -> str:
    metadata = document.value.get("metadata") if isinstance(document.value, dict) else None
    return str(metadata.get("name")) if isinstance(metadata, dict) else ""


def _is_ours(document: Document) -> bool:
    version = document.value.get("apiVersion") if isinstance(document.value, dict) else None
    return isinstance(version, str) and version.startswith(GROUP)


def _identify(document: Document, file: str) -> tuple[list[Fault], type[Resource] | None]:
    """What kind of resource ``document`` is, and what is wrong with how it says so."""
    value = document.value
    if not isinstance(value, dict):
        problem = f"is {shown(value)}, a mapping with apiVersion, kind, metadata and spec was expected"
        return [Fault(file, document.lines[()], "document", problem)], None
    message = "is empty, a value was expected: give it one, or leave it out"
    empty = [path for path in document.empty if path[: len(_DATA)] != _DATA or path == _DATA]
    faults = [_fault(document, file, path, message) for path in sorted(empty, key=field_name)]
    if value.get("apiVersion") != API_VERSION:
        faults.append(_identity_fault(document, file, "apiVersion", f"'{API_VERSION}' was expected"))
    kind = value.get("kind")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        near = did_you_mean(kind, KINDS) if isinstance(kind, str) else None
        expected = f"{_one_of(KINDS)} was expected" + (f", did you mean '{near}'?" if near else "")
        faults.append(_identity_fault(document, file, "kind", expected))
    return faults, model


def _identity_fault(document: Document, file: str, name: str, expected: str) -> Fault:
    problem = f"is {shown(document.value[name])}" if name in document.value else "is missing"
    return _fault(document, file, (name,), f"{problem}, {expected}")


def _fault(document: Document, file: str, where: FieldPath, message: str) -> Fault:
    return Fault(file, line_of(where, document.lines), field_name(where), message)


def _requires_anything(path: Path) -> bool:
    """Whether ``path`` is a file with more in it than comments; one that can't be read may be."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            lines = stream.read(MAX_BYTES).splitlines()
    except OSError:
        return True
    return any(line.strip() and not line.strip().startswith(b"#") for line in lines)


def _absolute(function: Function, base: Path) -> Function:
    """``function`` with absolute paths; of requirements, those that it has (``None``: it has none)."""
    if function.spec.image_only:
        return function
    source = function.spec.code
    folder = Path(os.path.realpath(base / source.path))  # unlike Path.resolve, bears a loop of links
    requirements: Path | None = folder / (source.requirements or "requirements.txt")
    if source.requirements is None and not _requires_anything(folder / "requirements.txt"):
        requirements = None
    absolute = Source.model_construct(path=folder, handler=source.handler, requirements=requirements)
    return function.model_copy(update={"spec": function.spec.model_copy(update={"source": absolute})})
