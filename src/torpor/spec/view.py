"""What all documents have in common that ``/api/v1`` and the command line show."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


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
