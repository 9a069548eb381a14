"""What all documents have in common that ``/api/v1`` and the command line show."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic_core import core_schema

MAX_ATTRIBUTE_BYTES = 16 * 1024
"""Most that a broker takes of the attributes of one event, names and values together."""

AttributeText = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ATTRIBUTE_BYTES)]
"""An attribute of an event, which may be as long as a broker takes: who has it can ask for the event."""


@dataclass(frozen=True, slots=True)
class Matching:
    """A text has the form ``pattern``, which programs are shown; people are told ``expected`` instead."""

    pattern: str
    """Whole, from ``^`` to ``$``, or the beginning that a text has."""
    expected: str
    """The same in words, with their verb: `NAMESPACE/NAME was expected`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": self.pattern}

    def check(self, text: str) -> str:
        """``text``. Raises :class:`ValueError` where it has another form."""
        whole = self.pattern.endswith("$")
        if not (re.fullmatch if whole else re.match)(self.pattern, text):
            raise ValueError(self.expected)
        return text


Key = Annotated[
    str,
    StringConstraints(min_length=1, max_length=512),
    Matching("^[^/]+/[^/]+$", "NAMESPACE/NAME was expected"),
]
"""The name of a resource with its namespace."""


class View(BaseModel):
    """A document: what is unknown in it is left out, its names are in camel case, and it doesn't change."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=True,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
    )


class Request(View):
    """What somebody asks for: what is unknown in it is refused, since it would mean something."""

    model_config = ConfigDict(extra="forbid")
