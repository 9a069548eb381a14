"""The schema of the functions chart's values is the models', and one that other programs can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from torpor.spec.chart import files, values_schema
from torpor.spec.written import write

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "charts" / "functions"


@pytest.mark.parametrize("name", files())
def test_generated_files_are_up_to_date(name: str) -> None:
    assert (FOLDER / name).read_bytes() == files()[name], "run: python -m tools.make_docs"


@pytest.mark.parametrize("folder", ["crds", "policies"])
def test_the_copies_that_ship_with_the_chart_are_up_to_date(folder: str) -> None:
    def content(of: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (of / folder).iterdir()}

    assert content(ROOT / "charts" / "torpor" / "files") == content(ROOT / "k8s"), (
        "run: python -m tools.make_docs"
    )


def test_writes_into_a_folder_that_is_new(tmp_path: Path) -> None:
    write(files(), tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(files())


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(inner) for inner in value.values()))
    return set().union(*(references(inner) for inner in value)) if isinstance(value, list) else set()


def test_every_reference_leads_somewhere_and_nothing_is_left_over() -> None:
    document = values_schema()
    assert references(document) == {f"#/$defs/{name}" for name in document["$defs"]}


def test_unknown_fields_are_refused_everywhere() -> None:
    document = values_schema()
    for name, definition in document["$defs"].items():
        assert definition["additionalProperties"] is False, name
