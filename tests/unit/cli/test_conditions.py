"""A trigger's filters in one line."""

from __future__ import annotations

from typing import Any

import pytest

from torpor.cli.conditions import in_short
from torpor.spec.models import Filter

IMAGE: dict[str, Any] = {"prefix": {"type": "image."}}
BIG: dict[str, Any] = {"exact": {"subject": "big", "data.n": "3"}}


@pytest.mark.parametrize(
    ("filters", "text"),
    [
        ([], "every event"),
        ([IMAGE], "type=image.*"),
        ([IMAGE, BIG], "type=image.* and subject=big and data.n=3"),
        ([{"suffix": {"source": "/shop"}}], "source=*/shop"),
        ([{"sql": "type = 'a' OR EXISTS tenant"}, IMAGE], "(type = 'a' OR EXISTS tenant) and type=image.*"),
        ([{"any": [IMAGE, BIG]}], "(type=image.* or subject=big and data.n=3)"),
        ([{"not": {"all": [IMAGE, BIG]}}], "not (type=image.* and subject=big and data.n=3)"),
        ([{"exact": {"type": "x" * 200}}], f"type={'x' * 115}..."),
    ],
)
def test_what_an_event_must_meet_is_one_line(filters: list[dict[str, Any]], text: str) -> None:
    assert in_short([Filter.model_validate(each) for each in filters]) == text
