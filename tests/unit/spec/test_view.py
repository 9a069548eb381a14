"""What is asked for has forms that programs read as patterns, and people in words."""

from __future__ import annotations

import re
from typing import Annotated

import pytest
from pydantic import StringConstraints, TypeAdapter, ValidationError

from torpor.spec import calls, history, letters, replays
from torpor.spec.view import Matching, Request

MODULES = (calls, history, letters, replays)
SHORT = Annotated[str, StringConstraints(max_length=4), Matching("^[ab]+$", "letters a and b were expected")]


def test_a_text_of_the_form_is_taken_and_any_other_refused_in_words() -> None:
    adapter = TypeAdapter(SHORT)
    assert adapter.validate_python("abba") == "abba"
    for text in ("", "c", "xab", "abx", "ab\n"):
        with pytest.raises(ValidationError, match="letters a and b were expected"):
            adapter.validate_python(text)


def test_a_form_without_an_end_is_that_of_a_beginning() -> None:
    adapter = TypeAdapter(Annotated[str, Matching("^[a-z]+=", "NAME=VALUE was expected")])
    assert adapter.validate_python("a=b\nc") == "a=b\nc"
    with pytest.raises(ValidationError, match="NAME=VALUE was expected"):
        adapter.validate_python(" a=b")


def test_programs_are_shown_the_pattern_beside_what_else_is_asked_for() -> None:
    assert TypeAdapter(SHORT).json_schema() == {"type": "string", "maxLength": 4, "pattern": "^[ab]+$"}


def test_no_request_has_a_pattern_without_words() -> None:
    """pydantic would tell people of the pattern itself."""
    requests = [
        each for each in Request.__subclasses__() if each.__module__ in {one.__name__ for one in MODULES}
    ]
    assert len(requests) >= 5
    for request in requests:
        assert not re.search(r"'pattern': ", repr(request.__pydantic_core_schema__)), request
