"""What a builder gets to make the image of a function: pure, but for reading and writing files.

A context is a folder with fixed names, modes and times, so that builders find again what did not change. Its
digest is the image's default tag: a function that changed has another.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torpor.errors import ImageBuildError
from torpor.providers.process.requirements import lines
from torpor.spec.discovery import DECLARATION, is_skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torpor.cli.wheel import Wheel

MAX_FILES = 20_000
MAX_BYTES = 1024**3

_REQUIREMENTS = "requirements.txt"
_HANDLER = "ENV TORPOR_HANDLER=main\n"
_LISTS = ("-r", "--requirement", "-c", "--constraint")
_OPTION = re.compile(r"(-[rcef]|--requirement|--constraint|--editable|--find-links)[ =]*(.+)")
_NOT_CODE = re.compile(rf"test_.*\.py|.*_test\.py|conftest\.py|.*\.py[co]|{re.escape(DECLARATION)}")


@dataclass(frozen=True, slots=True)
class Runtime:
    """How Torpor's runtime gets into an image."""

    requirement: str
    """What pip installs: ``torpor==1.2.3``, or a wheel that stands beside it."""
    dependencies: tuple[str, ...]
    """What is installed before it, in a layer that seldom changes."""
    wheel: Wheel | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What a builder gets: files by their path in the context, and symbolic links likewise."""

    files: dict[str, bytes | Path] = field(default_factory=dict)
    """Content, or the file that has it."""
    links: dict[str, str] = field(default_factory=dict)

    def digest(self, *more: str) -> str:
        """A digest of all that is in it and of ``more``."""
        sha = hashlib.sha256()
        for text in more:
            sha.update(len(text).to_bytes(8, "big") + text.encode())
        for name in sorted({*self.files, *self.links}):
            content = self.links[name].encode() if name in self.links else _content(self.files[name])
            for part in (name.encode("utf-8", "surrogateescape"), content):
                sha.update(len(part).to_bytes(8, "big") + part)
        return sha.hexdigest()

    def write(self, folder: Path) -> None:
        """Lay it out in ``folder``, which is empty or not there yet."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_content(content))
            executable = isinstance(content, Path) and content.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if executable else 0o644)
            os.utime(path, (0, 0))
        for name, target in self.links.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target)
        for parent, _, _ in os.walk(folder, topdown=False):
            Path(parent).chmod(0o755)
            os.utime(parent, (0, 0))


def _content(content: bytes | Path) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


# --- the context ------------------------------------------------------------------------------------------


def context(template: str, handler: str, runtime: Runtime, code: Path, requirements: Path | None) -> Context:
    """The context of the function ``handler`` whose code is in the folder ``code``.

    The handler is filled in where the template has its default. Raises
    :class:`~torpor.errors.ImageBuildError` for what can't go into an image.
    """
    made = Context()
    made.files["Dockerfile"] = template.replace(_HANDLER, f"ENV TORPOR_HANDLER={handler}\n").encode()
    made.files["torpor/dependencies.txt"] = _lines(runtime.dependencies)
    made.files["torpor/requirement.txt"] = _lines([runtime.requirement])
    if runtime.wheel is not None:
        made.files[f"torpor/{runtime.wheel.name}"] = runtime.wheel.content
    made.files[f"requirements/{_REQUIREMENTS}"] = b""
    if requirements is not None:
        _add_requirements(made, requirements)
    _add_code(made, code)
    return made


def _lines(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _add_requirements(made: Context, requirements: Path) -> None:
    """``requirements`` and each file or folder that it names, at the same place relative to it."""
    base = requirements.parent.resolve()
    made.files[f"requirements/{_REQUIREMENTS}"] = requirements
    unread, seen = [requirements], {requirements.resolve()}
    while unread:
        naming = unread.pop()
        for option, name in _named(naming):
            path = (naming.parent / name).resolve()
            if path in seen or not path.exists():  # an address, or pip will say that it is not there
                continue
            seen.add(path)
            if not path.is_relative_to(base):
                raise ImageBuildError(f"{naming} names {name}, a place below {base} was expected")
            if option in _LISTS:
                unread.append(path)
            for file in [path] if path.is_file() else _walk(path, lambda _: True):
                made.files[f"requirements/{file.relative_to(base).as_posix()}"] = file


def _named(requirements: Path) -> Iterator[tuple[str, str]]:
    """Each option and the path that it may name; a path by itself has no option."""
    try:
        text = requirements.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ImageBuildError(f"{requirements} can't be read: {error}") from error
    for line in lines(text):
        option = _OPTION.match(line)
        if option is not None:
            yield option[1], option[2].strip().partition("[")[0]
        elif "/" in line and "://" not in line:
            yield "", line.partition("[")[0].strip()


def _add_code(made: Context, code: Path) -> None:
    base = code.resolve()
    for file in _walk(base, lambda name: _NOT_CODE.fullmatch(name) is None):
        name = f"app/{file.relative_to(base).as_posix()}"
        if not file.is_symlink():
            made.files[name] = file
        elif file.resolve().is_relative_to(base) and file.exists():
            made.links[name] = os.path.relpath(file.resolve(), file.parent.resolve())
        else:
            raise ImageBuildError(f"{file} is a link, a target that exists below {base} was expected")


def _walk(folder: Path, wanted: Callable[[str], bool]) -> Iterator[Path]:
    """The files below ``folder`` with a ``wanted`` name, and links to folders; bounded."""
    files = size = 0
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        folders[:] = sorted(name for name in folders if name not in links and not is_skipped(name))
        for name in sorted((*names, *links)):
            path = Path(parent, name)
            if name.startswith(".") or not wanted(name):
                continue
            files += 1
            size += path.lstat().st_size
            if files > MAX_FILES or size > MAX_BYTES:
                limits = f"{MAX_FILES} files or {MAX_BYTES // 1024**2} MiB"
                raise ImageBuildError(f"{folder} holds more than {limits}, a function's code was expected")
            if path.is_symlink() or path.is_file():
                yield path
