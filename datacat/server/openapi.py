"""The OpenAPI 3.1 description of the server, made from the table of routes that it runs on.

Routes of queries are described by their own table, all others by described.py. A route that is in neither is described
by what the router knows of it.
"""

from collections.abc import Iterable
from typing import Any, TypeAlias

import datacat
from datacat.server import described
from datacat.server.query.answers import FORMATS
from datacat.server.query.serve import PREFIX
from datacat.server.query.shape import KINDS, Column, Endpoint, Parameter
from datacat.server.query.table import TABLE
from datacat.server.router import Answer, Request, Route, as_json
from datacat.wire import routes

Json: TypeAlias = dict[str, Any]

_PROBLEMS = {
    400: "the request cannot be understood; detail names what",
    401: "this needs a key, or another one",
    403: "this may not be done, or not from there",
    404: "there is no such thing",
    405: "not with this method; Allow names those that do",
    406: "no such representation",
    408: "the request did not come in time",
    409: "it does not fit what is there",
    410: "it was deleted; final",
    413: "the body, or what stands before it, is too large",
    414: "the address is too long",
    415: "the body's type or encoding is not taken",
    422: "the body says nothing that can be stored; errors names the fields",
    429: "too many requests; Retry-After tells when to come again",
    431: "the headers are too large",
    500: "the server failed; its log says why",
    503: "not now; Retry-After tells when to come again",
}
_READ = (400, 401, 403, 404, 405, 406, 408, 410, 413, 414, 422, 429, 431, 500, 503)
_WRITE = (400, 401, 403, 404, 405, 406, 408, 409, 410, 413, 414, 415, 422, 429, 431, 500, 503)

_TIME = {
    "type": "string",
    "description": "RFC 3339, Unix seconds, ms or us, now, now-6h or -6h",
    "examples": ["-6h", "2026-01-31T12:00:00Z", "1800000000"],
}
_LENGTH = {"type": "string", "pattern": r"^(auto|[1-9][0-9]{0,8}(ms|s|m|h|d|w)?|\$.*)?$"}


def described_too(table: Iterable[Route]) -> list[Route]:
    """Return the table with the route of /openapi.json, which describes them all."""
    made: list[Answer] = []

    def handle(_request: Request) -> Answer:
        """GET /openapi.json: this description."""
        if not made:
            made.append(as_json(document(known)))
        return made[0]

    known = [*table, Route("GET", "/openapi.json", handle, "read")]
    return known


def document(table: Iterable[Route]) -> Json:
    """Return the description of routes as an OpenAPI document."""
    queries = {PREFIX + endpoint.path: endpoint for endpoint in TABLE}
    paths: dict[str, Json] = {}
    for one in (*table, *described.BESIDE):
        endpoint = queries.get(one.path)
        operation = _query(endpoint) if endpoint else _other(one)
        operation["operationId"] = _name(one)
        operation["security"] = _security(one)
        paths.setdefault(one.path, {})[one.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "datacat",
            "version": datacat.__version__,
            "description": "A flight recorder for applications: sessions, how they ended, and what was asked of them.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM, **described.SCHEMAS},
            "responses": {str(status): _problem(text) for status, text in _PROBLEMS.items()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "a key made by datacat keys create"},
                "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
        },
    }


def _query(endpoint: Endpoint) -> Json:
    """Return the operation of a query."""
    named = [
        {
            "name": one.name,
            "in": "path" if f"{{{one.name}}}" in endpoint.path else "query",
            "required": one.required or f"{{{one.name}}}" in endpoint.path,
            "description": one.text,
            **_schema(one),
        }
        for one in endpoint.parameters
    ]
    always = [column.name for column in endpoint.columns[: endpoint.always]]
    # fill=null puts null where nothing happened, also into counts.
    may_be_null = (
        frozenset(c.name for c in endpoint.columns if c.kind in ("integer", "number"))
        if any(one.name == "fill" for one in endpoint.parameters)
        else frozenset()
    )
    row = {
        "type": "object",
        "required": always,
        "properties": {column.name: _column(column, may_be_null) for column in endpoint.columns},
        "additionalProperties": endpoint.open_ended,
    }
    envelope = {
        "type": "object",
        "required": ["rows", "next_cursor", "meta"],
        "properties": {
            "rows": {"type": "array", "items": row},
            "next_cursor": {"type": ["string", "null"]},
            "meta": {"type": "object"},
        },
    }
    content: Json = {routes.JSON: {"schema": envelope}, FORMATS["csv"].split(";")[0]: {"schema": {"type": "string"}}}
    content[routes.NDJSON] = {"schema": {"type": "string"}}
    return {
        "tags": ["queries"],
        "summary": endpoint.title,
        "description": endpoint.text,
        "parameters": named,
        "responses": {
            "200": {"description": "the rows", "content": content},
            "304": {"description": "the asker has these rows already"},
            **_refusals(_READ),
        },
    }


def _other(one: Route) -> Json:
    """Return the operation of any other route."""
    about = described.ROUTES.get((one.method, one.path), described.About(described.sentence(one.handler)))
    names = [name for name in one.path.split("/") if name.startswith("{")]
    parameters: list[Json] = [
        {"name": name.strip("{}"), "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in names
    ]
    for name in one.parameters:
        schema = dict(described.parameter(one.path, name))
        required = name in about.required
        parameters.append({"name": name, "in": "query", "required": required, "schema": schema})
    operation: Json = {
        "tags": [about.tag],
        "summary": about.title,
        "parameters": parameters,
        "responses": {**about.responses(), **_refusals(_READ if one.method == "GET" else _WRITE)},
    }
    if about.body is not None:
        operation["requestBody"] = {"required": about.body_required, "content": about.body}
    return operation


def _schema(one: Parameter) -> Json:
    """Return the schema of a query's parameter; several values are joined by commas, an empty one is none."""
    text: Json = {"type": "string"}
    match one.kind:
        case "time":
            return {"schema": _TIME}
        case "length":
            return {"schema": _LENGTH}
        case "count":
            least = {"default": int(one.default)} if one.default else {}
            whole: Json = {"type": "integer", "minimum": one.low, "maximum": one.high}
            return {"schema": {**(whole if one.required else {"anyOf": [whole, {"const": ""}]}), **least}}
        case "word" | "flag":
            default = {"default": one.default} if one.default else {}
            words = list(one.words) if one.required else ["", *one.words]
            return {"schema": {"type": "string", "enum": words, **default}}
        case "numbers":
            text = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e12}
        case "words":
            text = {"type": "string", "enum": ["", *one.words]}
        case "filter" if one.words:
            text = {"type": "string", "enum": ["", *(sign + word for word in one.words for sign in ("", "!"))]}
        case "text":
            return {"schema": {"type": "string", **({"minLength": 1} if one.required else {})}}
    if one.kind == "texts":
        items: Json = {"type": "string", "pattern": "^([a-z]+:.*)?$"}
        return {"schema": {"type": "array", "items": items}, "style": "form", "explode": True}
    at_least = {"minItems": 1} if one.required else {}
    if one.kind == "names" and one.required:
        text = {"type": "string", "minLength": 1}
    if one.kind == "names" and one.name == "by":
        text = {"type": "string", "enum": ["", "name", "product", "version", "hostname", "session", "tag:room"]}
    return {
        "schema": {"type": "array", "items": text, "maxItems": 500, **at_least},
        "style": "form",
        "explode": False,
    }


def _column(column: Column, may_be_null: frozenset[str]) -> Json:
    schema: Json = dict(KINDS[column.kind])
    if column.optional or column.name in may_be_null:
        schema |= {"type": [schema["type"], "null"]}
    return {**schema, "description": column.text}


_PROBLEM: Json = {
    "type": "object",
    "description": "RFC 9457",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
        "reason": {"type": "string"},
        "acked": {"type": "integer"},
        "boot": {"type": "string"},
    },
}


def _problem(text: str) -> Json:
    return {
        "description": text,
        "content": {routes.PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _refusals(statuses: Iterable[int]) -> Json:
    return {str(status): {"$ref": f"#/components/responses/{status}"} for status in statuses}


def _security(one: Route) -> list[Json]:
    """Without keys loopback needs none: the empty object says so."""
    if one.need is None:
        return []
    keys: list[Json] = [{"bearer": []}, {"header": []}]
    return keys if one.need == "admin" else [{}, *keys]


def _name(one: Route) -> str:
    words = [word.strip("{}").replace(".", "_") for word in one.path.split("/")[1:]]
    return "_".join([one.method.lower(), *(words if any(words) else ["root"])])
