from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from torpor.providers.process.requirements import environment_key, lines, satisfied

if TYPE_CHECKING:
    from importlib.metadata import Distribution

INSTALLED: dict[str, Any] = {
    "pillow": SimpleNamespace(version="12.1", requires=None),
    "web": SimpleNamespace(version="2.0rc1", requires=["pillow>=1", 'speed>=3; extra == "fast"', "gone"]),
    "ring": SimpleNamespace(version="1", requires=['ring[all]; extra == "all"']),
}


def installed(name: str) -> Distribution | None:
    return cast("Distribution | None", INSTALLED.get(name))


def test_lines_are_read_as_pip_reads_them() -> None:
    text = "# all\n\npillow>=12  # pictures\n  web[fast] \\\n  ==2\n-r more.txt\nx @ http://a/b#sha=1\n"
    assert lines(text) == ["pillow>=12", "web[fast]   ==2", "-r more.txt", "x @ http://a/b#sha=1"]


@pytest.mark.parametrize(
    ("wanted", "met"),
    [
        ([], True),
        (["pillow"], True),
        (["pillow>=12,<13"], True),
        (["pillow<12"], False),
        (["web==2.0rc1"], True),
        (["none"], False),
        (["none; python_version < '3'"], True),
        (["pillow", "none"], False),
        (["web[fast]"], False),
        (["web[other]"], False),  # its own needs are looked at with an extra, and one of them is gone
        (["ring[all]"], True),
        (["-r more.txt"], False),
        (["./pillow"], False),
        (["pillow @ file:///pillow.whl"], False),
        (["pillow==12.1 --hash=sha256:00"], False),
    ],
)
def test_requirements_are_met_or_not(wanted: list[str], met: bool) -> None:
    assert satisfied(wanted, installed) is met


def test_keys_tell_parts_apart() -> None:
    assert environment_key([b"ab", b"c"]) != environment_key([b"a", b"bc"])
    assert environment_key([b"ab", b"c"]) == environment_key([b"ab", b"c"])
