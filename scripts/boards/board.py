"""A dashboard around its panels: variables, annotations, links, ids; and its JSON as Grafana 11.6 to 13 take it."""

import json
from collections.abc import Sequence
from typing import Any

from boards import targets
from boards.panels import SOURCE
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

SCHEMA_VERSION = 42
"""The last of the classic model; older ones are migrated, newer ones refused by older Grafanas."""
ALL = model.VariableOption(selected=True, text=["All"], value=["$__all"])
TAG = "datacat"


def source_variable() -> build.DatasourceVariable:
    """Return the variable that names the data source: one of those called datacat, among any others of Infinity."""
    variable = build.DatasourceVariable("datasource").label("Data source").type(targets.PLUGIN)
    return variable.regex("/datacat/i").multi(False).description("Which datacat server is asked.")


def values(
    name: str, label: str, answers: str, dim: str, params: dict[str, str], *, multi: bool = True, all_: bool = True
) -> build.QueryVariable:
    """Return a variable with the values of a dimension in the range, asked for again when the range changes."""
    query = targets.variable_query(dim, targets.SPAN | params)
    variable = build.QueryVariable(name).label(label).description(answers).datasource(SOURCE).query(query)
    variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(model.VariableSort.DISABLED).multi(multi)
    variable.definition(f"{targets.PREFIX}values/{dim}").include_all(all_)
    # "*" instead of a list of all values: the server takes it for no filter.
    return variable.all_value("*").current(ALL) if all_ else variable


def words(name: str, label: str, answers: str, some: Sequence[str], default: str | None = None) -> build.CustomVariable:
    """Return a variable with a fixed list of words; default None: several may be chosen, and all are."""
    variable = build.CustomVariable(name).label(label).description(answers).values(",".join(some))
    if default is None:
        options = [model.VariableOption(selected=False, text=word, value=word) for word in some]
        return variable.multi(True).include_all(True).all_value("*").current(ALL).options(options)
    variable.options([model.VariableOption(selected=word == default, text=word, value=word) for word in some])
    return variable.multi(False).current(model.VariableOption(selected=True, text=default, value=default))


def typed(name: str, label: str, answers: str, default: str) -> build.TextBoxVariable:
    """Return a variable that is typed, or set by links."""
    chosen = model.VariableOption(selected=True, text=default, value=default)
    variable = build.TextBoxVariable(name).label(label).description(answers).default_value(default)
    return variable.current(chosen).options([chosen])


def fleet_variables() -> list[Any]:
    """Return the variables of every dashboard about sessions."""
    return [
        source_variable(),
        values("product", "Product", "Only sessions of these products.", "product", {}),
        values("version", "Version", "Only sessions of these versions, newest first.", "version",
               {"product": "${product:doublequote}"}),
    ]  # fmt: skip


def marks(name: str, kinds: str, color: str, filters: dict[str, str], *, shown: bool) -> build.AnnotationQuery:
    """Return marks of some kinds for all charts."""
    asked = targets.target("annotations", "time timeEnd title text tags id", targets.SPAN | filters | {"kinds": kinds})
    query = build.AnnotationQuery().name(name).datasource(SOURCE).enable(shown).icon_color(color)
    return query.target(asked)


def dashboard(
    uid: str,
    title: str,
    answers: str,
    variables: Sequence[Any],
    panels: Sequence[Any],
    *,
    since: str = "now-24h",
    fleet: bool = True,
) -> dict[str, Any]:
    """Return the JSON of a dashboard. fleet: it has the variables product and version."""
    filters = targets.FILTERS if fleet else {}
    board = build.Dashboard(title).uid(uid).description(answers).tags([TAG]).readonly()
    board.timezone("browser").tooltip(model.DashboardCursorSync.CROSSHAIR).refresh("1m").time(since, "now")
    board.variables(list(variables))
    board.annotations([
        marks("Releases", "release", "blue", filters, shown=fleet),
        marks("Server restarts", "server", "orange", filters, shown=not fleet),
    ])  # fmt: skip
    others = build.DashboardLink("datacat").type(model.DashboardLinkType.DASHBOARDS).tags([TAG]).as_dropdown(True)
    board.links([others.keep_time(True).include_vars(True).tooltip("The other dashboards of datacat")])
    for number, panel in enumerate(panels, 1):
        board.with_panel(panel.id(number))
    built = board.build()
    built.schema_version = SCHEMA_VERSION
    return plain(built)


def plain(built: model.Dashboard) -> dict[str, Any]:
    """Return what the SDK made as plain JSON, without what would hide links and marks in a menu of newer Grafanas."""
    found: dict[str, Any] = json.loads(json.dumps(built, cls=JSONEncoder))
    for one in (*found["links"], *found["annotations"]["list"]):
        one.pop("placement", None)
    return found


def text_of(board: dict[str, Any]) -> str:
    """Return the text of a file: sorted and indented, so that changes can be read."""
    return json.dumps(board, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
