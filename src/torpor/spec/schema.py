"""The declaration's shape for others: a JSON schema for editors, and the reference for people.

Both are made from the models by ``python -m torpor.spec.schema [FOLDER]``, FOLDER being ``docs`` by default.
The schema says what an editor can check while one types; ``torpor validate`` says all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import orjson
from pydantic import Field, TypeAdapter

from torpor.spec.models import KINDS, DeadLetterSink, EnvVar, Filter, Resource, ValueFrom
from torpor.spec.values import format_duration
from torpor.spec.written import main

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA_FILE = "schema/torpor.schema.json"
REFERENCE_FILE = "reference.md"

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ID = "https://torpor.dev/schema/torpor.schema.json"
BOUNDS = "x-bounds"
_TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "object": "mapping of texts to texts",
}


def schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of one document."""
    resource: TypeAdapter[Resource] = TypeAdapter(Annotated[Resource, Field(discriminator="kind")])
    document = _simplify(resource.json_schema(by_alias=True))
    definitions = document["$defs"]
    for kind in KINDS:
        definition = definitions[kind]
        definition["required"] = ["apiVersion", "kind", *definition["required"]]
        for name in ("apiVersion", "kind"):
            del definition["properties"][name]["default"]
    for model in (DeadLetterSink, Filter, ValueFrom):
        definitions[model.__name__] |= {"minProperties": 1, "maxProperties": 1}
    definitions[EnvVar.__name__]["oneOf"] = [{"required": ["value"]}, {"required": ["valueFrom"]}]
    return {"$schema": _DIALECT, "$id": _ID, "title": "A declaration for Torpor", **document}


def _simplify(value: Any) -> Any:
    """``value``, a schema or a part of one, without what says nothing to a person or an editor."""
    if isinstance(value, list):
        return [_simplify(item) for item in value]
    if not isinstance(value, dict):
        return value
    result = {
        key: _simplify(item) for key, item in value.items() if not (key == "title" and isinstance(item, str))
    }
    if "anyOf" in result:  # a value or null: null is refused in a file, where the field is left out instead
        result |= next(option for option in result.pop("anyOf") if option != {"type": "null"})
    if "patternProperties" in result:
        result["additionalProperties"] = False
    if "default" in result:
        result |= _default(result)
        if result["default"] is None or isinstance(result["default"], dict):
            del result["default"]
    if isinstance(result.get("description"), str):
        result["description"] = " ".join(result["description"].partition("\n\n")[0].split())
    return result


def _default(field: dict[str, Any]) -> dict[str, Any]:
    default = field["default"]
    if isinstance(default, float):
        if BOUNDS in field:
            default = format_duration(default)
        elif default.is_integer():
            default = int(default)
    return {"default": default}


# --- the reference ---

_HEADER = """\
# Declarations

<!-- Made from the models by `python -m torpor.spec.schema`. -->

What a person declares is YAML: one or more documents a file, in `function.yaml` or in any other `.yaml` file
whose documents have this `apiVersion`. A folder with a `main.py` that holds one `@function`, or a FastAPI
`app`, is a function without any; YAML says what differs from the defaults. `torpor validate` says everything
that is wrong, with file, line and field. Editors that know JSON schemas check against
[torpor.schema.json](schema/torpor.schema.json).

```yaml
apiVersion: torpor.dev/v1alpha1
kind: Function
metadata: {name: resize}
spec:
  containerConcurrency: 8
  scaling: {maxScale: 10, window: 30s}
---
apiVersion: torpor.dev/v1alpha1
kind: Trigger
metadata: {name: resize-tiles}
spec:
  filters: [{exact: {type: image.tile}}]
  subscriber: {function: resize}
---
apiVersion: torpor.dev/v1alpha1
kind: Schedule
metadata: {name: nightly}
spec:
  cron: 30 2 * * *
  timeZone: Europe/Berlin
  event: {type: report.due, data: {days: 1}}
```

A duration is a whole number and its unit: `500ms`, `10s`, `2m` or `1h`. Names have lower-case letters, digits
and inner `-`. A field that is given must have a value, and one that is not in the tables is an error.
"""


def reference() -> str:
    """``docs/reference.md``: every field with its type, its default and its meaning."""
    definitions = schema()["$defs"]
    sections = [_section(name, definitions) for name in _in_order(definitions, list(KINDS))]
    return "\n".join([_HEADER, *sections])


def _in_order(definitions: dict[str, Any], roots: list[str]) -> Iterator[str]:
    """The names of definitions, each after the one that first refers to it."""
    seen: set[str] = set()
    waiting = list(reversed(roots))
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        yield name
        fields = definitions[name]["properties"].values()
        waiting += reversed([referred for field in fields for referred in _references(field)])


def _references(field: dict[str, Any]) -> Iterator[str]:
    if "$ref" in field:
        yield field["$ref"].rpartition("/")[2]
    elif "items" in field:
        yield from _references(field["items"])


def _section(name: str, definitions: dict[str, Any]) -> str:
    definition = definitions[name]
    rows = [
        _row(field, rest, definition.get("required", []), definitions)
        for field, rest in definition["properties"].items()
    ]
    table = ["| field | type | default | meaning |", "| --- | --- | --- | --- |", *rows]
    return "\n".join([f"## {name}", "", definition["description"], "", *table, ""])


def _row(name: str, field: dict[str, Any], required: list[str], definitions: dict[str, Any]) -> str:
    if name in required:
        default = "required"
    elif field.get("default", []) == []:
        default = ""
    else:
        default = f"`{_shown(field['default'])}`"
    # pydantic leaves out what the object that is referred to says of itself in the same words.
    meaning = field.get("description") or definitions[next(_references(field))]["description"]
    return f"| `{name}` | {_type(field)} | {default} | {meaning} |"


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        [name] = _references(field)
        return f"[{name}](#{name.lower()})"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if "type" not in field:
        return "any"
    if field["type"] == "array":
        return f"list of {_type(field['items'])}"
    return f"duration, {field[BOUNDS]}" if BOUNDS in field else _TYPES[field["type"]] + _range(field)


def _range(field: dict[str, Any]) -> str:
    if "exclusiveMinimum" in field:
        return f", over {field['exclusiveMinimum']:g} to {field['maximum']:g}"
    return f", {field['minimum']:,} to {field['maximum']:,}" if "minimum" in field else ""


def files() -> dict[str, bytes]:
    """What is written, by path below the folder of documents."""
    document = orjson.dumps(schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return {SCHEMA_FILE: document, REFERENCE_FILE: reference().encode()}


if __name__ == "__main__":
    main(files(), "docs")
