"""The pages that come from the code are up to date, and no link within the repository leads nowhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tools.make_docs import DOCS, pages
from torpor.spec.letters import LetterSelection
from torpor.spec.replays import Replay, ReplayPage

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel

ROOT = DOCS.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(DOCS.rglob("*.md")),
    *sorted(ROOT.glob("functions/*/*.md")),
    *sorted(ROOT.glob("charts/*/*.md")),
]
_LINK = re.compile(r"\]\(([^)#:]+)(#[^)]*)?\)")


@pytest.mark.parametrize("name", pages())
def test_generated_pages_are_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == pages()[name], "run: python -m tools.make_docs"


@pytest.mark.parametrize(
    ("model", "section"),
    [(Replay, "## Replay\n"), (ReplayPage, "## Replay\n"), (LetterSelection, "## Delivery\n")],
)
def test_what_the_api_takes_of_events_is_told(model: type[BaseModel], section: str) -> None:
    _, _, text = (DOCS / "events.md").read_text("utf-8").partition(section)
    told = set(re.findall(r"`(\w+)`", text.partition("\n## ")[0]))
    assert {field.alias for field in model.model_fields.values()} - told == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = [match[1] for match in _LINK.finditer(page.read_text("utf-8"))]
    assert [target for target in targets if not (page.parent / target).exists()] == []
