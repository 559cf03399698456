"""Queries of the dashboards in the form that Grafana's Infinity data source takes, checked against the server's table.

Infinity's backend parser needs every column declared with its type; both come from the table of endpoints, so that a
dashboard cannot ask for what the server does not have. Field names and their meaning: the plugin's pkg/models/query.go,
version 3.11.
"""

from typing import Any

from grafana_foundation_sdk.cog.variants import Dataquery

from datacat.server.query.serve import PREFIX
from datacat.server.query.shape import Endpoint
from datacat.server.query.table import TABLE

PLUGIN = "yesoreyeram-infinity-datasource"
TYPES = {
    "text": "string",
    "integer": "number",
    "number": "number",
    "flag": "boolean",
    "time": "timestamp",
    "time_ms": "timestamp_epoch",
}
"""Kind of a column: the type that Infinity gives the field."""
SPAN = {"from": "${__timeFrom}", "to": "${__timeTo}"}
"""Replaced by the plugin, not by the browser: a panel's own time range and that of an alert rule are heeded."""
FILTERS = {"product": "${product:doublequote}", "version": "${version:doublequote}"}
INTERVAL = {"interval": "${__interval_ms}"}
FLEET = SPAN | FILTERS
SERIES = FLEET | INTERVAL
BARS = {"max_points": "60"}
"""So many bars can be told apart in half a screen."""


class Query(Dataquery):
    """One target as the dashboard's JSON has it."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    def to_json(self) -> dict[str, Any]:
        return self.data

    def build(self) -> "Query":
        """The SDK takes builders."""
        return self


def endpoint_of(path: str) -> Endpoint:
    """Return the endpoint that a path below /api/query/ leads to."""
    for endpoint in TABLE:
        fixed, _, dim = endpoint.path.partition("{")
        if path == endpoint.path:
            return endpoint
        if dim and path.startswith(fixed) and path[len(fixed) :] in endpoint.parameters[0].words:
            return endpoint
    raise ValueError(f"the server has no {path}")


def target(
    path: str,
    columns: str | dict[str, str],
    params: dict[str, str],
    form: str = "table",
    datasource: str = "${datasource}",
    **more: Any,
) -> Query:
    """Return the target for a path below /api/query/.

    columns are names separated by blanks, or {name: name of the field}. Parameters of words are checked.
    Raises: ValueError.
    """
    endpoint = endpoint_of(path)
    kinds = {column.name: column.kind for column in endpoint.columns}
    known = {one.name: one for one in endpoint.parameters}
    for name, value in params.items():
        if name not in known:
            raise ValueError(f"{path} does not take {name}")
        words = known[name].words
        if words and "$" not in value and not set(value.split(",")) <= set(words):
            raise ValueError(f"{path}: {name} may not be {value}")
    fields = columns if isinstance(columns, dict) else {name: name for name in columns.split()}
    return Query({
        "refId": "A",
        "datasource": {"type": PLUGIN, "uid": datasource},
        "type": "json",
        "source": "url",
        "parser": "backend",
        "format": form,
        "url": PREFIX + path,
        "url_options": {
            "method": "GET",
            "data": "",
            "params": [{"key": key, "value": value} for key, value in params.items()],
        },
        "root_selector": "rows",
        "columns": [
            {"selector": name, "text": text, "type": TYPES[kinds[name]]} for name, text in fields.items()
        ],
        "filters": [],
        "computed_columns": [],
        "filterExpression": "",
        "summarizeExpression": "",
        **more,
    })  # fmt: skip


def variable_query(dim: str, params: dict[str, str]) -> dict[str, Any]:
    """Return the query of a variable; one row also when there is none, because Infinity takes no empty answer there."""
    asked = target(
        f"values/{dim}",
        {"value": "__value", "text": "__text"},
        {**params, "limit": "200", "placeholder": "(none)"},
    ).data
    return {"refId": "variable", "queryType": "infinity", "infinityQuery": {**asked, "refId": "variable"}}
