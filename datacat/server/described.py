"""What OpenAPI says about the routes that are no queries: their bodies, their answers, their parameters."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from datacat.server.router import Route
from datacat.server.views import MEMBERS
from datacat.wire import routes
from datacat.wire.records import LEVELS, METRIC_TYPES
from datacat.wire.routes import END_REASONS, STATUS_CODES

Json: TypeAlias = dict[str, Any]

_TEXT: Json = {"type": "string"}
_NAME: Json = {"type": "string", "minLength": 1, "maxLength": 200}
_TIME: Json = {
    "description": "RFC 3339, or Unix seconds, ms or us",
    "anyOf": [
        {"type": "string", "format": "date-time"},
        {"type": "integer", "minimum": 0, "maximum": 4_000_000_000},
    ],
}
_MAYBE_TIME: Json = {"type": ["string", "null"]}
_MAYBE_TEXT: Json = {"type": ["string", "null"]}
_UUID: Json = {"type": "string", "format": "uuid"}
_STATE: Json = {"type": "object", "description": "JSON without null members"}


_OBJECTS: Json = {"type": "array", "items": {"type": "object"}}


def _object(required: list[str], properties: Json) -> Json:
    return {"type": "object", "required": required, "properties": properties}


def _list_of(name: str, items: Json) -> Json:
    return _object([name, "next_cursor"], {name: {"type": "array", "items": items}, "next_cursor": _MAYBE_TEXT})


def _or_null(schema: Json) -> Json:
    """Return the schema for a member that may be null, which is the same as leaving it out."""
    if "enum" in schema:
        return {**schema, "type": [schema["type"], "null"], "enum": [*schema["enum"], None]}
    if "type" in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [*schema["anyOf"], {"type": "null"}]}


_WHOLE: Json = {"type": ["integer", "null"], "minimum": 0}
_STANDING: Json = {
    "sessions": _or_null({"type": "array", "items": _UUID}),
    "sent_at": {**_WHOLE, "description": "the daemon's clock, Unix us"},
    "spool_bytes": {**_WHOLE, "description": "what waits on its machine"},
}
SCHEMAS: dict[str, Json] = {
    "Head": _object(
        ["id", "product", "version", "created_at", "status", "active", "counts"],
        {
            "id": _UUID,
            "product": _TEXT,
            "version": _TEXT,
            "environment": _MAYBE_TEXT,
            **dict.fromkeys(("created_at", "updated_at", "ended_at", "last_heartbeat"), _MAYBE_TIME),
            "status": {"type": "string", "enum": list(STATUS_CODES)},
            "end_reason": _MAYBE_TEXT,
            "end_detail": _MAYBE_TEXT,
            **{name: {"type": ["integer", "null"]} for name in ("exit_code", "exit_signal", "pid")},
            **{name: {"type": "boolean"} for name in ("active", "suspended", "crashed", "hung", "ever_hung")},
            "hang_count": {"type": "integer"},
            "hang_seconds": {"type": "number"},
            **dict.fromkeys(("machine_id", "hostname", "platform", "daemon_id"), _MAYBE_TEXT),
            "streams": {"type": "object", "additionalProperties": {"type": "integer"}},
            "counts": {"type": "object"},
        },
    ),
    "Session": {
        "allOf": [
            {"$ref": "#/components/schemas/Head"},
            _object(
                ["state", "state_history", "events", "metrics"],
                {
                    "state": {"type": "object"},
                    **{
                        n: {"type": "array", "items": {"type": "object"}}
                        for n in ("state_history", "events", "metrics")
                    },
                },
            ),
        ]
    },
    "NewSession": _object(
        ["product", "version"],
        {
            "product": _NAME,
            "version": _NAME,
            "id": _UUID,
            **dict.fromkeys(("hostname", "machine_id", "environment"), _TEXT),
            "pid": {"type": ["integer", "null"]},
            "started_at": _or_null(_TIME),
            "state": _or_null(_STATE),
        },
    ),
    "Event": _object(
        ["name"],
        {
            "name": _NAME,
            "timestamp": _or_null(_TIME),
            "level": _or_null({"type": "string", "enum": list(LEVELS)}),
            **dict.fromkeys(("category", "group", "message", "exception_type", "exception_msg"), _TEXT),
            **{name: _or_null({"type": "array", "items": _TEXT}) for name in ("labels", "stacktrace")},
            "data": {"type": ["object", "null"]},
            "source_file": _or_null(_TEXT),
            "source_line": {"type": ["integer", "null"]},
            "source_function": _or_null(_TEXT),
        },
    ),
    "Metric": _object(
        ["name", "value"],
        {
            "name": _NAME,
            "timestamp": _or_null(_TIME),
            "type": _or_null({"type": "string", "enum": list(METRIC_TYPES)}),
            "value": {"type": "number", "minimum": -1e300, "maximum": 1e300},
            "count": {"type": ["integer", "null"]},
            "unit": _or_null(_TEXT),
            "tags": _or_null({"type": "array", "items": _TEXT}),
            "metadata": {"type": ["object", "null"]},
        },
    ),
    "Daemon": _object(
        ["id"],
        {
            "id": {"type": "string", "minLength": 1, "maxLength": 64},
            **dict.fromkeys(("hostname", "machine_id", "boot_id", "version", "platform"), _MAYBE_TEXT),
            "pid": {"type": ["integer", "null"]},
            **_STANDING,
        },
    ),
    "NewKey": _object(
        ["name", "role"],
        {
            "name": {"type": "string", "minLength": 1, "maxLength": 64},
            "role": {"type": "string", "enum": ["ingest", "read", "admin"]},
            "products": _or_null({"type": "array", "items": _NAME}),
            "expires_at": _or_null(_TIME),
        },
    ),
}


def _maybe(properties: Json) -> Json:
    """Return the schema of a body that may be null, or not be there."""
    return {"type": ["object", "null"], "properties": properties}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: Json) -> Json:
    return {routes.JSON: {"schema": schema}}


_OK = _object(["status"], {"status": {"type": "string"}})
_ROWS = _list_of("rows", {"type": "object"})
_LEASE = _object(["lease_s", "boot"], {"lease_s": {"type": "number"}, "boot": _TEXT})


@dataclass(frozen=True, slots=True)
class About:
    """What is said about one route. answers are status and content of what is no refusal."""

    title: str
    answers: dict[int, Json] = field(default_factory=lambda: {200: {"*/*": {}}})
    body: Json | None = None
    body_required: bool = True
    tag: str = "server"
    required: tuple[str, ...] = ()

    def responses(self) -> Json:
        """Return the answers as OpenAPI has them."""
        return {
            str(status): {"description": _WORDS[status], **({"content": content} if content else {})}
            for status, content in self.answers.items()
        }


_WORDS = {200: "done", 201: "made", 204: "gone", 303: "it is elsewhere", 304: "the asker has it already"}
_SOME = {"type": "object", "description": "what fields names of it"}
_LIST = {routes.JSON: {"schema": {"type": "array", "items": {"anyOf": [_ref("Session"), _SOME]}}}}
_ONE_OR_MANY = {"Event": "events", "Metric": "metrics"}


def _records(kind: str) -> Json:
    return _json({"anyOf": [_ref(kind), {"type": "array", "items": _ref(kind), "maxItems": 1000}]})


_ONE = "/api/sessions/{id}"
_SESSIONS = "sessions"
ROUTES: dict[tuple[str, str], About] = {
    ("POST", "/api/sessions"): About(
        "Create a session", {200: _json(_ref("Session")), 201: _json(_ref("Session"))}, _json(_ref("NewSession")),
        tag=_SESSIONS,
    ),
    ("GET", "/api/sessions"): About(
        "List sessions", {200: _json(_list_of("sessions", _ref("Head")))}, tag=_SESSIONS
    ),
    ("GET", _ONE): About("One session", {200: _json(_ref("Session")), 304: {}}, tag=_SESSIONS),
    ("DELETE", _ONE): About("Delete a session", {204: {}}, tag=_SESSIONS),
    ("GET", f"{_ONE}/events"): About("Events of a session", {200: _json(_ROWS)}, tag=_SESSIONS),
    ("GET", f"{_ONE}/metrics"): About("Metrics of a session", {200: _json(_ROWS)}, tag=_SESSIONS),
    ("GET", f"{_ONE}/history"): About("Changes of the state of a session", {200: _json(_ROWS)}, tag=_SESSIONS),
    ("GET", f"{_ONE}/transitions"): About("Changes of status of a session", {200: _json(_ROWS)}, tag=_SESSIONS),
    ("GET", f"{_ONE}/state"): About("State of a session", {200: _json({"type": "object"})}, tag=_SESSIONS),
    ("POST", f"{_ONE}/state"): About(
        "Change the state",
        {200: _json(_OK)},
        {**_json({"type": "object"}), routes.MERGE_PATCH: {"schema": {"type": "object"}}},
        tag=_SESSIONS,
    ),
    ("POST", f"{_ONE}/events"): About("Add events", {200: _json(_OK)}, _records("Event"), tag=_SESSIONS),
    ("POST", f"{_ONE}/metrics"): About("Add metrics", {200: _json(_OK)}, _records("Metric"), tag=_SESSIONS),
    ("POST", f"{_ONE}/heartbeat"): About("A sign of life", {200: _json(_OK)}, tag=_SESSIONS),
    ("POST", f"{_ONE}/end"): About(
        "The session has ended",
        {200: _json(_OK)},
        _json(_maybe({"exit_code": {"type": ["integer", "null"]}})),
        body_required=False,
        tag=_SESSIONS,
    ),
    ("POST", f"{_ONE}/crash"): About(
        "The session has crashed",
        {200: _json(_OK)},
        _json(_maybe({"reason": {"type": ["string", "null"]}})),
        body_required=False,
        tag=_SESSIONS,
    ),
    ("GET", "/api/grafana/sessions"): About("Whole sessions, streamed", {200: _LIST}, tag=_SESSIONS),
    ("GET", "/api/data/sessions"): About("The same", {200: _LIST}, tag=_SESSIONS),
    ("POST", "/api/daemons"): About(
        "Register a daemon", {200: _json(_LEASE)}, _json(_ref("Daemon")), tag="daemons"
    ),
    ("POST", "/api/daemons/{id}/heartbeat"): About(
        "Renew the lease of a daemon",
        {200: _json(_LEASE)},
        _json(_maybe(_STANDING)),
        body_required=False,
        tag="daemons",
    ),
    ("GET", "/api/daemons"): About(
        "Who is connected", {200: _json(_object(["daemons"], {"daemons": {"type": "array"}}))}, tag="daemons"
    ),
    ("GET", "/api/keys"): About("All keys, without their texts", {200: _json({"type": "object"})}, tag="keys"),
    ("POST", "/api/keys"): About(
        "Make a key; its text is told once", {201: _json({"type": "object"})}, _json(_ref("NewKey")), tag="keys"
    ),
    ("DELETE", "/api/keys/{id}"): About("Revoke a key", {204: {}}, tag="keys"),
    ("GET", "/api/audit"): About("What admins did", {200: _json({"type": "object"})}, tag="keys"),
    ("GET", "/api/export"): About(
        "Whole sessions as NDJSON (format=ndjson, for /api/import) or CSV (format=csv)",
        {200: {routes.NDJSON: {"schema": _TEXT}, "text/csv": {"schema": _TEXT}}},
    ),
    ("POST", "/api/import"): About(
        "Lines of an export; what is there already changes nothing",
        {200: _json({"type": "object"})},
        {routes.NDJSON: {"schema": _TEXT}},
    ),
    ("POST", f"{_ONE}/batches"): About(
        "Records of a stream, exactly once",
        {200: _json(_object(["acked", "boot"], {"acked": {"type": "integer"}, "boot": _TEXT}))},
        {routes.NDJSON: {"schema": _TEXT}},
        tag="daemons",
        required=("stream", "from", "to"),
    ),
    ("GET", f"{_ONE}/acked"): About(
        "What is acknowledged of each stream",
        {200: _json(_object(["streams", "boot"], {"streams": {"type": "object"}, "boot": _TEXT}))},
        tag="daemons",
    ),
    ("GET", "/openapi.json"): About("This description", {200: _json({"type": "object"})}),
    ("GET", "/health"): About("Whether the store takes writes", {200: _json(_OK)}),
    ("GET", "/livez"): About("Whether the process answers", {200: {"text/plain": {"schema": _TEXT}}}),
    ("GET", "/metrics"): About("Metrics for Prometheus", {200: {"text/plain": {"schema": _TEXT}}}),
    ("GET", "/readyz"): About("Whether the store takes writes", {200: {"text/plain": {"schema": _TEXT}}}),
}  # fmt: skip


BATCH_PARAMETERS = ("stream", "from", "to", "crc", "end_crc", "records", "pending")


def _beside(_request: object) -> Any:
    """Stand in the table for what the hot path answers."""


BESIDE = (
    Route(
        "POST", f"{_ONE}/batches", _beside, "ingest", ("stream", "from", "to", "crc", "end_crc", "records", "pending")
    ),
    Route("GET", f"{_ONE}/acked", _beside, "ingest"),
)
"""Routes that are answered beside the router's table."""

_COUNT: Json = {"type": "integer", "minimum": 0, "maximum": 2**62}
_ENDS = [reason for reasons in END_REASONS.values() for reason in reasons]
_PARAMETERS: dict[str, Json] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
    "from": {"type": "string", "description": "RFC 3339, or Unix seconds, ms or us", "examples": ["1800000000"]},
    "to": {"type": "string", "description": "RFC 3339, or Unix seconds, ms or us", "examples": ["1800000000"]},
    "order": {"type": "string", "enum": ["", "asc", "desc"]},
    "at": {"type": "string", "enum": ["", "start", "overlap", "end"]},
    "status": {"type": "string", "enum": ["", *STATUS_CODES]},
    "end_reason": {"type": "string", "enum": ["", *_ENDS]},
    "has": {"type": "string", "enum": ["", "crash", "hang", "exception"]},
    "level": {"type": "string", "enum": ["", *LEVELS]},
    **{name: {"type": "string", "pattern": "^([a-z]+:.*)?$"} for name in ("state", "state_ever")},
    "history_state": {"type": "string", "enum": ["", "0", "1"]},
    **{name: {"type": "string", "pattern": "^(all|[0-9]{1,4})$"} for name in ("events", "metrics", "history")},
    "fields": {"type": "string", "pattern": f"^(({'|'.join(MEMBERS)})(,|$))*$"},
    **dict.fromkeys(("crc", "end_crc", "records", "pending"), _COUNT),
    "stream": {"type": "string", "pattern": "^[0-9A-Za-z_-]{1,64}$"},
}


def parameter(path: str, name: str) -> Json:
    """Return the schema of a parameter; a text when nothing more is known."""
    if name == "at" and not path.endswith("/sessions"):
        return _PARAMETERS["from"]
    return _PARAMETERS.get(name, _TEXT)


def sentence(handler: Callable[..., Any]) -> str:
    """Return what the first line of a handler's docstring says about its answer."""
    line = (handler.__doc__ or "").strip().partition("\n")[0]
    return re.sub(r"^[A-Z]+ \S+: ", "", line).rstrip(".") or "a page"
