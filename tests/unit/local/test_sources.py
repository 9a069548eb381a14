"""Whether a function's code has changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from torpor.errors import DeclarationError
from torpor.local import sources
from torpor.spec.models import Function, Metadata

if TYPE_CHECKING:
    from pathlib import Path


def _function(name: str = "f") -> Function:
    return Function(metadata=Metadata(name=name))


def _folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text("a = 1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "words.txt").write_text("one")
    return tmp_path


def test_it_stays_the_same_while_nothing_changes(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    assert sources.fingerprint(_function(), folder) == sources.fingerprint(_function(), folder)


@pytest.mark.parametrize("name", ["main.py", "data/words.txt", "new.py"])
def test_a_changed_or_new_file_changes_it(tmp_path: Path, name: str) -> None:
    folder = _folder(tmp_path)
    before = sources.fingerprint(_function(), folder)
    (folder / name).write_text("something else")
    assert sources.fingerprint(_function(), folder) != before


def test_a_touched_file_changes_it(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    before = sources.fingerprint(_function(), folder)
    os.utime(folder / "main.py", ns=(1, 1))
    assert sources.fingerprint(_function(), folder) != before


def test_a_changed_declaration_changes_it(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    assert sources.fingerprint(_function("a"), folder) != sources.fingerprint(_function("b"), folder)


@pytest.mark.parametrize(
    "name", ["README.md", "test_main.py", ".git/HEAD", "__pycache__/main.pyc", "build/x.py", "venv/a.py"]
)
def test_what_is_no_code_does_not(tmp_path: Path, name: str) -> None:
    folder = _folder(tmp_path)
    before = sources.fingerprint(_function(), folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("x")
    assert sources.fingerprint(_function(), folder) == before


def test_a_folder_with_too_many_files_is_no_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _folder(tmp_path)
    monkeypatch.setattr(sources, "MAX_FILES", 1)
    with pytest.raises(DeclarationError, match="more than 1 files, a folder of its own was expected"):
        sources.fingerprint(_function(), folder)
