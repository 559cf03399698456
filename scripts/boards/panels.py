"""The kinds of panels that the dashboards are made of; each has a title, what it answers, one query and a place."""

from collections.abc import Sequence
from typing import Any

from boards import looks
from boards.targets import PLUGIN, Query
from grafana_foundation_sdk.builders import (
    barchart,
    common,
    logs,
    stat,
    statetimeline,
    statushistory,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as model

SOURCE = kinds.DataSourceRef(type_val=PLUGIN, uid="${datasource}")
SHARED = {"type": "datasource", "uid": "-- Dashboard --"}
Place = tuple[int, int, int, int]
"""x, y, width, height in a grid of 24 columns."""
Name = tuple[str, str | None]
"""What a series is called, and its colour."""
NOTHING = "Nothing in this range"


def _begun(panel: Any, title: str, answers: str, place: Place, query: Query | None, nothing: str) -> Any:
    x, y, width, height = place
    panel.title(title).description(answers).grid_pos(model.GridPos(h=height, w=width, x=x, y=y)).no_value(nothing)
    if query is None:
        # What panel 1 was answered, not what it makes of it.
        asked = {"refId": "A", "datasource": SHARED, "panelId": 1, "withTransforms": False}
        shared = kinds.DataSourceRef(type_val=SHARED["type"], uid=SHARED["uid"])
        return panel.datasource(shared).targets([Query(asked)])
    return panel.datasource(SOURCE).targets([query])


def _drawn(panel: Any, title: str, answers: str, place: Place, query: Query, nothing: str) -> Any:
    """Return a panel of many values: what is said of nothing at all is not said of each null in its legend."""
    return _begun(panel, title, answers, place, query, nothing).override_by_regexp(".*", [looks.prop("noValue", "–")])


def number(
    title: str,
    answers: str,
    place: Place,
    field: str,
    unit: str,
    *,
    query: Query | None = None,
    before: bool = False,
    levels: Sequence[tuple[float | None, str]] = looks.QUIET,
    nothing: str = "–",
    decimals: int | None = None,
    background: bool = False,
    links: Sequence[dict[str, Any]] = (),
) -> stat.Panel:
    """Return one number of a row. Without a query the row is that of panel 1, which asks once for all of them.

    before: show the same number of the range before beside it.
    """
    reduced = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    panel = _begun(stat.Panel(), title, answers, place, query, nothing)
    panel.unit(unit).thresholds(looks.steps(*levels)).graph_mode(kinds.BigValueGraphMode.NONE)
    panel.color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    panel.color_mode(kinds.BigValueColorMode.BACKGROUND if background else kinds.BigValueColorMode.VALUE)
    panel.justify_mode(kinds.BigValueJustifyMode.AUTO).text_mode(kinds.BigValueTextMode.VALUE)
    if decimals is not None:
        panel.decimals(decimals)
    if links:
        panel.override_by_name(field, [looks.prop("links", list(links))])
    if not before:
        return panel.reduce_options(reduced.fields(f"/^{field}$/"))
    names = [field, f"prev_{field}"]
    panel.transformations([
        _change("filterFieldsByName", {"include": {"names": names}}),
        _change("organize", {
            "excludeByName": {}, "includeByName": {}, "indexByName": {name: at for at, name in enumerate(names)},
            "renameByName": dict(zip(names, ("This range", "Range before"), strict=True)),
        }),
    ])  # fmt: skip
    panel.text_mode(kinds.BigValueTextMode.VALUE_AND_NAME).orientation(kinds.VizOrientation.HORIZONTAL)
    return panel.reduce_options(reduced.fields(""))


def _change(name: str, options: dict[str, Any]) -> model.DataTransformerConfig:
    return model.DataTransformerConfig(id_val=name, options=options)


def _legend(calcs: Sequence[str], *, right: bool) -> common.VizLegendOptions:
    legend = common.VizLegendOptions().show_legend(True).calcs(list(calcs))
    legend.placement(kinds.LegendPlacement.RIGHT if right else kinds.LegendPlacement.BOTTOM)
    return legend.display_mode(kinds.LegendDisplayMode.TABLE if right else kinds.LegendDisplayMode.LIST)


def series(
    title: str,
    answers: str,
    place: Place,
    query: Query,
    unit: str,
    *,
    named_by: str = "",
    names: dict[str, Name] | None = None,
    stacked: kinds.StackingMode = kinds.StackingMode.NONE,
    bars: bool = False,
    low: float | None = None,
    high: float | None = None,
    decimals: int | None = None,
    calcs: Sequence[str] = ("lastNotNull",),
    right: bool = False,
    levels: Sequence[tuple[float | None, str]] = (),
    nothing: str = NOTHING,
) -> timeseries.Panel:
    """Return lines or bars over time. named_by is the label that names a line, names those of measures without labels.

    low and high are where the axis begins and ends unless data lie beyond (low) or at all (high); levels are drawn as
    lines. Gaps stay gaps: null means that nobody can know, a count without events is 0.
    """
    panel = _drawn(timeseries.Panel(), title, answers, place, query, nothing)
    panel.unit(unit).span_nulls(False).show_points(kinds.VisibilityMode.AUTO).point_size(5)
    panel.line_width(0 if bars else 2).line_interpolation(kinds.LineInterpolation.LINEAR)
    panel.draw_style(kinds.GraphDrawStyle.BARS if bars else kinds.GraphDrawStyle.LINE)
    filled = bars or stacked != kinds.StackingMode.NONE
    panel.fill_opacity(70 if filled else 8).gradient_mode(kinds.GraphGradientMode.NONE)
    panel.stacking(common.StackingConfig().mode(stacked).group("A"))
    panel.color_scheme(build.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
    panel.legend(_legend(calcs, right=right))
    many = named_by or (names and len(names) > 1)
    mode = kinds.TooltipDisplayMode.MULTI if many else kinds.TooltipDisplayMode.SINGLE
    panel.tooltip(common.VizTooltipOptions().mode(mode).sort(kinds.SortOrder.DESCENDING))
    if low is not None:
        panel.axis_soft_min(low)
    if high is not None:
        panel.max(high)
    if decimals is not None:
        panel.decimals(decimals)
    if levels:
        panel.thresholds(looks.steps(*levels))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED))
    if named_by:
        # On numbers alone: as a default it would rename the time as well.
        panel.override_by_field_type("number", [looks.prop("displayName", f"${{__field.labels.{named_by}}}")])
    for name, (text, color) in (names or {}).items():
        panel.override_by_name(name, [looks.prop("displayName", text), *([looks.fixed(color)] if color else [])])
    return panel


def rows(
    title: str,
    answers: str,
    place: Place,
    query: Query,
    order: str,
    *,
    overrides: dict[str, Sequence[model.DynamicConfigValue]] | None = None,
    hidden: str = "",
    widths: dict[str, int] | None = None,
    nothing: str = NOTHING,
) -> table.Panel:
    """Return a table. order are all columns as they are shown, hidden those that only links need.

    Infinity gives fields in the order of their names, so that every table has to be put in order.
    """
    shown = order.split()
    every = [*shown, *hidden.split()]
    declared = [column["text"] for column in query.data["columns"]]
    if sorted(every) != sorted(declared):
        raise ValueError(f"{title}: {set(every) ^ set(declared)}")
    panel = _drawn(table.Panel(), title, answers, place, query, nothing)
    panel.unit("short").cell_height(kinds.TableCellHeight.SM).show_header(True).filterable(False)
    panel.transformations([
        _change("organize", {
            "excludeByName": {}, "includeByName": {}, "renameByName": {},
            "indexByName": {name: at for at, name in enumerate(every)},
        }),
    ])  # fmt: skip
    for name in shown:
        kind = next(column["type"] for column in query.data["columns"] if column["text"] == name)
        given = [looks.prop("displayName", looks.heading(name)), *_usual(name, kind)]
        if widths and name in widths:
            given.append(looks.prop("custom.width", widths[name]))
        given += (overrides or {}).get(name, ())
        panel.override_by_name(name, given)
    for name in hidden.split():
        # Excluded by organize they could not be linked to.
        hide = {"viz": True, "legend": False, "tooltip": False}
        panel.override_by_name(name, [looks.prop("custom.hideFrom", hide), looks.prop("custom.hidden", True)])
    return panel


def _usual(name: str, kind: str) -> list[model.DynamicConfigValue]:
    """Return what a column always looks like, by its name."""
    colored = looks.prop("custom.cellOptions", {"type": "color-text"})
    if name == "status":
        return [looks.prop("mappings", looks.status_texts()), colored]
    if kind == "timestamp":
        return [looks.prop("unit", "dateTimeAsLocalNoDateIfToday")]
    if kind == "string":
        return [looks.prop("unit", "string")]
    if name.endswith(("_rate", "_share")) or name.startswith("share_"):
        if name == "hang_rate":
            return [looks.prop("decimals", 1)]
        return [looks.prop("unit", "percentunit"), looks.prop("decimals", 2)]
    if name.endswith(("seconds", "seconds_p50", "ttr_p50", "ttr_p95")):
        return [looks.prop("unit", "s"), looks.prop("decimals", 1)]
    if name in ("crashed", "hung", "hung_now", "hangs") and kind == "number":
        color = looks.COLORS["crashed" if name == "crashed" else "hung"]
        levels = looks.plain_steps((None, "text"), (1, color))
        return [looks.prop("thresholds", levels), colored, looks.prop("color", {"mode": "thresholds"})]
    return []


def flag(text: str, color: str) -> list[model.DynamicConfigValue]:
    """Return the overrides of a column of yes and no: a word where it is so, nothing where not."""
    words = {"true": {"text": text, "color": color, "index": 0}, "false": {"text": "", "index": 1}}
    return [
        looks.prop("mappings", [{"type": "value", "options": words}]),
        looks.prop("custom.cellOptions", {"type": "color-text"}),
    ]


def gauge(low: float) -> list[model.DynamicConfigValue]:
    """Return the overrides of a share that is drawn as a bar from low to 1."""
    return [
        looks.prop("custom.cellOptions", {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}),
        looks.prop("min", low),
        looks.prop("max", 1),
        looks.prop("thresholds", looks.plain_steps(*looks.FREE)),
        looks.prop("color", {"mode": "thresholds"}),
    ]


def links(*some: dict[str, Any]) -> list[model.DynamicConfigValue]:
    """Return the override with the links of a field."""
    return [looks.prop("links", list(some))]


def bars(
    title: str,
    answers: str,
    place: Place,
    query: Query,
    x: str,
    names: dict[str, Name],
    *,
    unit: str = "short",
    stacked: bool = False,
    horizontal: bool = False,
    hidden: str = "",
    nothing: str = NOTHING,
) -> barchart.Panel:
    """Return bars, one for each row, in the order of the rows; names are the columns that are drawn, in their order."""
    panel = _drawn(barchart.Panel(), title, answers, place, query, nothing)
    panel.unit(unit).x_field(x).fill_opacity(80).line_width(0).group_width(0.8).bar_width(0.85)
    panel.orientation(kinds.VizOrientation.HORIZONTAL if horizontal else kinds.VizOrientation.VERTICAL)
    panel.stacking(kinds.StackingMode.NORMAL if stacked else kinds.StackingMode.NONE)
    panel.show_value(kinds.VisibilityMode.AUTO).x_tick_label_max_length(24).axis_soft_min(0)
    panel.legend(_legend([], right=False).show_legend(len(names) > 1))
    mode = kinds.TooltipDisplayMode.MULTI if len(names) > 1 else kinds.TooltipDisplayMode.SINGLE
    panel.tooltip(common.VizTooltipOptions().mode(mode).sort(kinds.SortOrder.NONE))
    panel.transformations([
        _change("organize", {
            "excludeByName": dict.fromkeys(hidden.split(), True), "includeByName": {}, "renameByName": {},
            "indexByName": {name: at for at, name in enumerate([x, *names])},
        }),
    ])  # fmt: skip
    for name, (text, color) in names.items():
        panel.override_by_name(name, [looks.prop("displayName", text), *([looks.fixed(color)] if color else [])])
    return panel


def history(title: str, answers: str, place: Place, query: Query) -> statushistory.Panel:
    """Return a row for each session with its status in each bucket; the numbers of status_code are mapped to words."""
    panel = _drawn(statushistory.Panel(), title, answers, place, query, "No session in this range")
    panel.unit("none").mappings(looks.status_codes()).show_value(kinds.VisibilityMode.NEVER)
    panel.row_height(0.85).col_width(0.95).fill_opacity(85).line_width(0).legend(_legend([], right=False))
    panel.tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.SINGLE).sort(kinds.SortOrder.NONE))
    panel.color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    name = "${__field.labels.product} ${__field.labels.session}"
    return panel.override_by_field_type("number", [looks.prop("displayName", name)])


def timeline(title: str, answers: str, place: Place, query: Query, nothing: str) -> statetimeline.Panel:
    """Return the status of one session over time."""
    panel = _drawn(statetimeline.Panel(), title, answers, place, query, nothing)
    panel.unit("string").merge_values(True).show_value(kinds.VisibilityMode.AUTO).row_height(0.7)
    panel.fill_opacity(85).line_width(0).legend(_legend([], right=False))
    panel.tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.SINGLE).sort(kinds.SortOrder.NONE))
    panel.color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    return panel.override_by_name(
        "status", [looks.prop("displayName", "Status"), looks.prop("mappings", looks.status_texts())]
    )


def log(title: str, answers: str, place: Place, query: Query, nothing: str) -> logs.Panel:
    """Return events as the lines of a log, newest first."""
    panel = _drawn(logs.Panel(), title, answers, place, query, nothing)
    panel.unit("string").show_time(True).show_labels(False).show_common_labels(False).wrap_log_message(True)
    panel.prettify_log_message(False).enable_log_details(True).sort_order(kinds.LogsSortOrder.DESCENDING)
    return panel.dedup_strategy(kinds.LogsDedupStrategy.NONE)
