"""What the values of the chart ``charts/functions`` may be, made from the models.

``python -m torpor.spec.chart [FOLDER]`` writes it, FOLDER being ``charts/functions`` by default. Helm
refuses by it what an editor would mark; what depends on more than one field is left to the API server.
"""

from __future__ import annotations

from typing import Any

import orjson

from torpor.spec.models import KINDS
from torpor.spec.schema import schema
from torpor.spec.written import main

SCHEMA_FILE = "values.schema.json"
_WHOLE = (*KINDS, "Metadata")
_LEFT_OUT = frozenset(("x-bounds", "format"))


def values_schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of the chart's values: specs by name."""
    document = schema()
    definitions = document["$defs"]
    name = definitions["Metadata"]["properties"]["name"]
    names = {key: value for key, value in name.items() if key != "description"}

    def by_name(kind: str, description: str) -> dict[str, Any]:
        return {
            "type": "object",
            "description": description,
            "propertyNames": names,
            "additionalProperties": definitions[kind]["properties"]["spec"],
        }

    used = {key: _plain(value) for key, value in definitions.items() if key not in _WHOLE}
    return {
        "$schema": document["$schema"],
        "title": "Values of the chart functions",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "global": {"type": "object", "description": "What a parent chart gives; nothing here reads it."},
            "functions": _plain(by_name("Function", "Functions by name.")),
            "triggers": _plain(by_name("Trigger", "Triggers by name.")),
            "schedules": _plain(by_name("Schedule", "Schedules by name.")),
        },
        "$defs": used,
    }


def _plain(value: Any) -> Any:
    """``value`` without what only other readers of the schema know."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _plain(item) for key, item in value.items() if key not in _LEFT_OUT}


def files() -> dict[str, bytes]:
    """What is written, by name."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    return {SCHEMA_FILE: orjson.dumps(values_schema(), option=options)}


if __name__ == "__main__":
    main(files(), "charts/functions")
