"""What verbs print."""

from __future__ import annotations

import json

import pytest

from torpor.cli.output import plural, print_json, print_table
from torpor.spec.models import Metadata


def test_tables_are_not_cut_and_take_nothing_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    print_table(("name", "url"), [("[bold]a[/bold]", long), ("b", None), (3, ":smile:")], empty="none")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [["NAME", "URL"], ["[bold]a[/bold]", long], ["b", "-"], ["3", ":smile:"]]


def test_an_empty_table_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name",), [], empty="there are no functions")
    assert capsys.readouterr().out == "there are no functions\n"


def test_json_has_models_in_it_by_their_names_in_the_api(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"items": [Metadata(name="f")], "count": 1})
    assert json.loads(capsys.readouterr().out) == {
        "items": [{"name": "f", "namespace": "default", "labels": {}}],
        "count": 1,
    }


def test_json_refuses_what_has_no_form_there() -> None:
    with pytest.raises(TypeError):
        print_json({"a": object()})


@pytest.mark.parametrize(("number", "text"), [(0, "0 faults"), (1, "1 fault"), (2, "2 faults")])
def test_plurals(number: int, text: str) -> None:
    assert plural(number, "fault") == text
