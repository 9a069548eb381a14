"""One platform a data folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from torpor.errors import StartError
from torpor.local.lock import DataFolder

if TYPE_CHECKING:
    from pathlib import Path


def test_a_second_user_is_told_who_has_the_folder(tmp_path: Path) -> None:
    words = rf"in use by another platform \(pid {os.getpid()}\)"
    with DataFolder(tmp_path / "data"), pytest.raises(StartError, match=words):
        DataFolder(tmp_path / "data").__enter__()


def test_the_folder_is_free_again_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with DataFolder(tmp_path / "data") as folder:
            assert folder.path.is_dir()


def test_others_may_not_look_into_the_folder(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data") as folder:
        assert folder.path.stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="file/data: no folder for data can be made there"):
        DataFolder(tmp_path / "file" / "data").__enter__()
