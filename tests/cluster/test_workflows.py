"""The workflows, read by actionlint, which knows the inputs of widely used actions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.cluster import shell
from tests.cluster.binaries import Binaries
from tests.cluster.settings import ROOT, ClusterError, Settings

if TYPE_CHECKING:
    from pathlib import Path

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def actionlint() -> Path:
    return Binaries(Settings.from_environment(), print).path("actionlint")


def test_they_are_right(actionlint: Path) -> None:
    assert shell.run(actionlint, *WORKFLOWS) == ""


def test_the_check_finds_what_is_wrong(actionlint: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8")
    broken.write_text(text.replace("platforms: linux", "platform: linux"))
    with pytest.raises(ClusterError, match='input "platform" is not defined'):
        shell.run(actionlint, broken)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_rights_are_few(path: Path) -> None:
    text = path.read_text("utf-8")
    assert re.findall(r"uses: \S+@(?!v\d)\S*", text) == []
    assert "\npermissions:\n  contents: read\n" in text
