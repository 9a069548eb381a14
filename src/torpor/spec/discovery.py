"""Which files declare something, and which folders are a function without declaring it.

A folder with a ``main.py`` that holds a ``@function``, or an ``app`` made by a known ASGI framework, is a
function. The module is looked at as text, never imported: loading declarations runs nobody's code.
"""

from __future__ import annotations

import ast
import os
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from torpor.spec.faults import Fault, printable
from torpor.spec.models import GROUP
from torpor.spec.values import MAX_NAME_LENGTH

MAX_ENTRIES = 100_000
MAX_CODE_BYTES = 1024 * 1024
MODULE = "main.py"
DECLARATION = "function.yaml"
ASGI_CLASSES = ("FastAPI", "Starlette", "Litestar", "Quart", "Sanic", "BlackSheep")

_SKIPPED_FOLDERS = {"__pycache__", "node_modules", "venv", "build", "dist"}
_SUFFIXES = {".yaml", ".yml"}
_HINT = re.compile(rb"\btorpor\b|\b(" + "|".join(ASGI_CLASSES).encode() + rb")\b")


@dataclass(frozen=True, slots=True)
class Found:
    """A YAML file to read. Where ``whole`` holds, every document in it has to be one of Torpor's."""

    path: Path
    whole: bool


@dataclass(slots=True)
class Discovery:
    """What was found below some paths: files, folders with a ``main.py``, and what was wrong on the way."""

    files: list[Found] = field(default_factory=list)
    modules: list[Path] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    _entries: int = 0

    def add(self, path: Path) -> None:
        """Look at ``path``, a file or a folder, and at all below it."""
        if path.is_dir():
            self._walk(path)
        elif path.suffix in _SUFFIXES and path.is_file():
            self.files.append(Found(path, whole=True))
        elif path.exists():
            self._fault(path, "is neither a folder nor a YAML file, one of them was expected")
        else:
            self._fault(path, "does not exist, a folder or a YAML file was expected")

    def _fault(self, path: Path, message: str) -> None:
        self.faults.append(Fault(printable(path), None, "", message))

    def _walk(self, root: Path) -> None:
        def unreadable(error: OSError) -> None:
            self._fault(
                Path(error.filename), f"can't be read ({error.strerror}), a readable folder was expected"
            )

        for parent, folders, names in os.walk(root, onerror=unreadable):
            folders[:] = sorted(name for name in folders if not is_skipped(name))
            self._entries += len(folders) + len(names)
            if self._entries > MAX_ENTRIES:
                self._fault(root, f"holds more than {MAX_ENTRIES} files, a folder of functions was expected")
                return
            for name in sorted(names):
                path = Path(parent, name)
                if name == MODULE and path.is_file():
                    self.modules.append(path)
                elif path.suffix in _SUFFIXES and not name.startswith(".") and path.is_file():
                    self._candidate(path)

    def _candidate(self, path: Path) -> None:
        if path.name == DECLARATION:
            self.files.append(Found(path, whole=True))
            return
        try:
            with path.open("rb") as file:
                head = file.read(MAX_CODE_BYTES)
        except OSError:  # some file that need not be ours
            return
        if GROUP.encode() in head:
            self.files.append(Found(path, whole=False))


@dataclass(frozen=True, slots=True)
class Module:
    """What a ``main.py`` holds: names and lines of its ``@function``s, and the line of its ``app``."""

    functions: dict[str, int]
    app_line: int | None

    @property
    def line(self) -> int:
        """The line of the first of them."""
        return min([*self.functions.values(), *([self.app_line] if self.app_line else [])])


def is_skipped(name: str) -> bool:
    """Whether a folder of that name is never looked into."""
    return name.startswith(".") or name in _SKIPPED_FOLDERS


def function_name(folder: Path) -> str | None:
    """The name of the function that ``folder`` is; ``None`` when its own name has nothing for one."""
    name = re.sub(r"[^a-z0-9]+", "-", folder.name.lower())[:MAX_NAME_LENGTH].strip("-")
    return name or None


def inspect_module(code: bytes, file: str) -> Module | Fault | None:
    """What the module with this ``code`` holds; ``None`` when it is no function's.

    A module that can't be parsed and looks like a function's is a fault.
    """
    if not _HINT.search(code):
        return None
    if len(code) > MAX_CODE_BYTES:
        return Fault(
            file, 1, "", f"is larger than {MAX_CODE_BYTES // 1024} KiB, a smaller module was expected"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
    except SyntaxError as error:
        return Fault(file, error.lineno or 1, "", f"{error.msg}, valid Python was expected")
    except (ValueError, RecursionError, MemoryError) as error:
        return Fault(file, 1, "", f"can't be parsed ({error}), valid Python was expected")
    return _inspect(tree)


def _inspect(tree: ast.Module) -> Module | None:
    decorators = _decorators(tree)
    functions: dict[str, int] = {}
    app_line = None
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            if any(_dotted(decorator) in decorators for decorator in statement.decorator_list):
                functions[statement.name] = statement.lineno
            elif statement.name == "app" and _takes_asgi(statement):
                app_line = statement.lineno
        elif _makes_app(statement):
            app_line = statement.lineno
    return Module(functions, app_line) if functions or app_line else None


def _decorators(tree: ast.Module) -> set[str]:
    """What the module calls ``torpor.function``."""
    names = set()
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and statement.module == "torpor" and not statement.level:
            names |= {alias.asname or alias.name for alias in statement.names if alias.name == "function"}
        elif isinstance(statement, ast.Import):
            names |= {f"{a.asname or a.name}.function" for a in statement.names if a.name == "torpor"}
    return names


def _dotted(node: ast.expr) -> str:
    """``node`` as a dotted name, what is called if it is a call."""
    if isinstance(node, ast.Call):
        return _dotted(node.func)
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def _takes_asgi(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return isinstance(function, ast.AsyncFunctionDef) and len(function.args.args) == 3


def _makes_app(statement: ast.stmt) -> bool:
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets, value = statement.targets, statement.value
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets, value = [statement.target], statement.value
    else:
        return False
    names = {target.id for target in targets if isinstance(target, ast.Name)}
    return "app" in names and isinstance(value, ast.Call) and _dotted(value).split(".")[-1] in ASGI_CLASSES
