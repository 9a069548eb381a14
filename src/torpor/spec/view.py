"""What all documents have in common that ``/api/v1`` and the command line show."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel

MAX_ATTRIBUTE_BYTES = 16 * 1024
"""Most that a broker takes of the attributes of one event, names and values together."""

AttributeText = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ATTRIBUTE_BYTES)]
"""An attribute of an event, which may be as long as a broker takes: who has it can ask for the event."""


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
