"""Finds what a module serves: a handler marked with ``@function``, an ASGI app, or both.

What goes wrong in the author's code is told in the author's terms, with the line in their file.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torpor.errors import HandlerError
from torpor.runtime.declare import mark_of
from torpor.runtime.plan import Plan, place, plan

if TYPE_CHECKING:
    from types import ModuleType

_APP = "app"


@dataclass(frozen=True, slots=True)
class Target:
    """What a function serves: events and plain calls by ``plan``, all other HTTP by ``app``; one at least."""

    handler: str
    plan: Plan | None
    app: Any
    document: str | None = None

    @property
    def name(self) -> str:
        """What the function is called when the platform gives it no name."""
        if self.plan is not None:
            return self.plan.name.replace("_", "-")
        return self.handler.partition(":")[0].rpartition(".")[2]


def load(handler: str, folder: Path | None) -> Target:
    """What ``handler``, a ``module`` or ``module:name`` in ``folder``, serves.

    ``folder`` is put on the path from which modules are imported. Raises
    :class:`~torpor.errors.HandlerError`.
    """
    module_name, _, name = handler.partition(":")
    if not all(step.isidentifier() for step in module_name.split(".")):
        raise HandlerError(f"{handler!r} is no handler; 'module' or 'module:name' was expected")
    if folder is not None:
        entry = str(folder.resolve())
        if sys.path[0] != entry:
            sys.path.insert(0, entry)
    module = _import(module_name, folder)
    return _named(handler, module, name) if name else _found(handler, module)


def _import(name: str, folder: Path | None) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (error.name == name or name.startswith(error.name + ".")):
            where = folder if folder is not None else "the path"
            raise HandlerError(f"there is no module '{name}' in {where}") from error
        raise HandlerError(f"{_line(error, folder)}: {error}; is it in requirements.txt?") from error
    except SyntaxError as error:
        file = _shown(error.filename, folder)
        raise HandlerError(f"{file}:{error.lineno}: {error.msg}") from error
    except SystemExit as error:
        raise HandlerError(
            f"{_line(error, folder)}: the module ends the process when it is imported"
        ) from error
    except Exception as error:
        raise HandlerError(f"{_line(error, folder)}: {type(error).__name__}: {error}") from error


def _line(error: BaseException, folder: Path | None) -> str:
    """The deepest line of the author's own that the error came through; else the deepest of all."""
    frames = traceback.extract_tb(error.__traceback__)
    root = str(folder.resolve()) if folder is not None else None
    own = [f for f in frames if root is not None and f.filename.startswith(root + "/")]
    foreign = [f for f in frames if not f.filename.startswith("<frozen") and f.filename != __file__]
    chosen = own or foreign or list(frames)
    return f"{_shown(chosen[-1].filename, folder)}:{chosen[-1].lineno}"


def _shown(file: str | None, folder: Path | None) -> str:
    if file is None:
        return "?"
    path = Path(file)
    if folder is not None and path.is_relative_to(folder.resolve()):
        return str(path.relative_to(folder.resolve()))
    return str(path)


def _named(handler: str, module: ModuleType, name: str) -> Target:
    value = getattr(module, name, None)
    mark = mark_of(value)
    if mark is not None and value is not None:
        return Target(handler, plan(value, mark), None, inspect.getdoc(value))
    if _is_asgi(value):
        return Target(handler, None, value)
    if value is None:
        known = [*_marked(module), *([_APP] if _is_asgi(getattr(module, _APP, None)) else [])]
        expected = f"it has {', '.join(known)}" if known else "it has no @function and no app"
        raise HandlerError(f"{_file(module)}: there is no '{name}' in module '{module.__name__}'; {expected}")
    if callable(value) and not inspect.isclass(value):
        raise HandlerError(
            f"{place(value)}: '{name}' is neither marked with @function nor an ASGI app{_wsgi(value)}"
        )
    raise HandlerError(f"{_file(module)}: '{name}' is no function and no ASGI app")


def _found(handler: str, module: ModuleType) -> Target:
    marked = _marked(module)
    app = getattr(module, _APP, None)
    if len(marked) > 1:
        names = ", ".join(marked)
        raise HandlerError(
            f"{_file(module)}: there are {len(marked)} functions in module '{module.__name__}' ({names});"
            f" name one: '{module.__name__}:{next(iter(marked))}'"
        )
    if app is not None and not _is_asgi(app):
        if not marked:
            raise HandlerError(f"{_file(module)}: 'app' is no ASGI app{_wsgi(app)}")
        app = None
    if not marked and app is None:
        raise HandlerError(
            f"{_file(module)}: there is no function marked with @function, and no ASGI app called 'app',"
            f" in module '{module.__name__}'"
        )
    for value in marked.values():
        return Target(handler, plan(value, _mark(value)), app, inspect.getdoc(value))
    return Target(handler, None, app)


def _mark(value: Any) -> Any:
    return mark_of(value)


def _marked(module: ModuleType) -> dict[str, Any]:
    """The handlers of the module's own: those imported from elsewhere count where nothing else is there."""
    all_marked = {
        name: value for name, value in vars(module).items() if mark_of(value) is not None and callable(value)
    }
    distinct = {id(value): name for name, value in reversed(all_marked.items())}
    all_marked = {name: value for name, value in all_marked.items() if distinct[id(value)] == name}
    own = {n: v for n, v in all_marked.items() if getattr(v, "__module__", None) == module.__name__}
    return own or all_marked


def _is_asgi(value: Any) -> bool:
    """Whether it can be called as ``await value(scope, receive, send)``."""
    if value is None or inspect.isclass(value) or not callable(value):
        return False
    called = value if inspect.isroutine(value) else type(value).__call__
    if not inspect.iscoroutinefunction(called):
        return False
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return False
    required = [p for p in parameters if p.default is p.empty and p.kind is not p.KEYWORD_ONLY]
    return len([p for p in required if p.kind is not p.VAR_POSITIONAL and p.kind is not p.VAR_KEYWORD]) == 3


def _wsgi(value: Any) -> str:
    try:
        count = len(inspect.signature(value).parameters)
    except (TypeError, ValueError):
        return ""
    return "; wrap a WSGI app with a2wsgi.WSGIMiddleware" if count == 2 else ""


def _file(module: ModuleType) -> str:
    return Path(getattr(module, "__file__", None) or module.__name__).name
