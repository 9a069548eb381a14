"""The page at ``/api/v1/docs``: the OpenAPI document for people to read.

It loads nothing: FastAPI's own page fetches its script from another host, and stays empty without a
network. Pure.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
body { color: #1b1f24; background: #fff }
code { font: 0.9em ui-monospace, monospace } b { display: inline-block; min-width: 3rem }
h2 { margin-top: 2.5rem } h3 { margin: 2rem 0 0 } p { margin: .25rem 0 .5rem }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 }
td { vertical-align: top; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #d0d7de }
@media (prefers-color-scheme: dark) {
  body { background: #0d1117; color: #e6edf3 } td { border-color: #30363d } a { color: #58a6ff }
}
"""


def page(document: Mapping[str, Any]) -> str:
    """``document``, an OpenAPI 3.1 document, as one page of HTML."""
    info = document["info"]
    title = escape(f"{info['title']} API, version {info['version']}")
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>',
        f"<h1>{title}</h1><p>{escape(info.get('summary', ''))} For programs: ",
        '<a href="openapi.json">openapi.json</a>.</p><h2>Operations</h2>',
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts.extend(_operation(path, method, operation))
    parts.append("<h2>Documents</h2>")
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts.extend(_schema(name, schema))
    return "".join(parts)


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    name = escape(operation["operationId"])
    yield f'<h3 id="{name}"><b>{method.upper()}</b> <code>{escape(path)}</code></h3>'
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    rows = [
        (f"{one['name']} ({one['in']})", _type(one["schema"]), one.get("description", ""))
        for one in operation.get("parameters", ())
    ]
    rows += [
        (
            f"answer {status}",
            ", ".join(f"{escape(kind)} {_type(body['schema'])}" for kind, body in answer["content"].items()),
            answer["description"],
        )
        for status, answer in operation["responses"].items()
        if status.startswith("2")
    ]
    yield _table(rows)


def _schema(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{escape(schema.get("description", ""))}</p>'
    yield _table(
        [
            (field, _type(about), about.get("description", ""))
            for field, about in schema.get("properties", {}).items()
        ]
    )


def _table(rows: list[tuple[str, str, str]]) -> str:
    """A table of names, types (HTML already) and descriptions; nothing without rows."""
    cells = (
        f"<tr><td><code>{escape(name)}</code><td>{kind}<td>{escape(about)}" for name, kind, about in rows
    )
    return f"<table>{''.join(cells)}</table>" if rows else ""


def _type(schema: Mapping[str, Any]) -> str:
    """What a schema takes, in a word or two of HTML."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "enum" in schema:
        return escape(", ".join(map(str, schema["enum"])))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(str(schema.get("format") or schema.get("type") or ""))
