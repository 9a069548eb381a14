"""``/openapi.json`` and ``/docs`` of a handler: what it takes and gives back. An author's app has its own."""

from __future__ import annotations

import html
import typing
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import PydanticUserError, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema

from torpor.runtime import answers, metrics
from torpor.runtime.mount import prefix_of
from torpor.runtime.plan import Plan, Style, Takes

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.runtime.load import Target
    from torpor.runtime.runtime import Runtime

_REF = "#/components/schemas/{model}"
_CONTENT_TYPES = {Takes.BYTES: "application/octet-stream", Takes.TEXT: "text/plain"}
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{name}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}}
pre{{background:#8881;padding:1rem;overflow:auto}}</style>
<h1>{name}</h1>
<p>{text}</p>
<p><code>POST /</code> takes {takes}; it replies with events of the type <code>{emits}</code>.</p>
<h2>Takes</h2><pre>{input}</pre>
<h2>Gives back</h2><pre>{output}</pre>
<p>As <a href="openapi.json">OpenAPI</a>.</p>
</html>
"""


def documents(target: Target) -> dict[str, Callable[[Runtime, Any], answers.Answer]]:
    """The two addresses, for a function without an app of its own."""
    plan = target.plan
    if plan is None:
        return {}

    def openapi(runtime: Runtime, scope: Any) -> answers.Answer:
        document = _openapi(runtime.name, plan, target.document)
        prefix = prefix_of(dict(scope["headers"]))
        if prefix:
            document["servers"] = [{"url": prefix}]
        body = orjson.dumps(document)
        return answers.answer(200, [(b"content-type", b"application/json")], body, metrics.OK)

    def docs(runtime: Runtime, _scope: Any) -> answers.Answer:
        page = _page(runtime.name, plan, target.document)
        headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", _POLICY)]
        return answers.answer(200, headers, page.encode("utf-8", "replace"), metrics.OK)

    return {"/openapi.json": openapi, "/docs": docs}


_POLICY = b"default-src 'none'; style-src 'unsafe-inline'"


def _openapi(name: str, plan: Plan, document: str | None) -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    taken, given = _input(plan, schemas), _output(plan, schemas)
    operation: dict[str, Any] = {
        "operationId": plan.name,
        "summary": (document or plan.name).partition("\n")[0],
        "responses": {
            "200": {"description": "What it gives back", "content": {"application/json": {"schema": given}}},
            "204": {"description": "It gives nothing back"},
            "4XX": {"description": "A problem document (RFC 9457)"},
            "5XX": {"description": "A problem document (RFC 9457)"},
        },
    }
    if document:
        operation["description"] = document
    if plan.takes is not Takes.NOTHING:
        content_type = _CONTENT_TYPES.get(plan.takes, "application/json")
        operation["requestBody"] = {"required": True, "content": {content_type: {"schema": taken}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": "1"},
        "paths": {"/": {"post": operation}},
        "components": {"schemas": schemas},
    }


def _input(plan: Plan, schemas: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    if plan.adapter is not None:
        schema = _schema(plan.adapter, "validation", schemas)
    elif plan.takes is Takes.TEXT:
        schema = {"type": "string"}
    elif plan.takes is Takes.BYTES:
        schema = {"type": "string", "format": "binary"}
    return {"type": "array", "items": schema} if plan.many else schema


def _output(plan: Plan, schemas: dict[str, Any]) -> dict[str, Any]:
    try:
        annotation = typing.get_type_hints(plan.function).get("return", Any)
    except (NameError, TypeError, AttributeError):
        return {}  # known to type checkers alone
    arguments = typing.get_args(annotation)
    if plan.style in (Style.GENERATOR, Style.ASYNC_GENERATOR):
        annotation = list[arguments[0]] if arguments else list[Any]  # type: ignore[valid-type]
    try:
        return _schema(TypeAdapter(annotation), "serialization", schemas)
    except PydanticUserError:
        return {}  # a type of which only the author knows how it looks


def _schema(adapter: TypeAdapter[Any], mode: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    try:
        schema = adapter.json_schema(mode=mode, ref_template=_REF)
    except PydanticInvalidForJsonSchema:
        return {}
    schemas.update(schema.pop("$defs", {}))
    return schema


def _page(name: str, plan: Plan, document: str | None) -> str:
    schemas: dict[str, Any] = {}

    def shown(schema: dict[str, Any]) -> str:
        inner = {**schema, "$defs": schemas} if schemas else schema
        return html.escape(orjson.dumps(inner, option=orjson.OPT_INDENT_2).decode())

    return _PAGE.format(
        name=html.escape(name),
        text=html.escape(document or "").replace("\n\n", "<p>"),
        takes=html.escape(plan.takes.value),
        emits=html.escape(plan.emits or f"{name}.replied"),
        input=shown(_input(plan, schemas)),
        output=shown(_output(plan, schemas)),
    )
