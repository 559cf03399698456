"""The table of the query layer: every endpoint with its parameters, columns and function."""

from datacat.server.query import counted, crashes, events, hangs, health, metrics, sessions, state, values
from datacat.server.query import parameters as p
from datacat.server.query.measures import HANG_MEASURES, MEASURES, SHARES
from datacat.server.query.shape import Endpoint, Parameter
from datacat.wire.records import LEVELS, METRIC_TYPES

_DIMS = tuple(health.dimensions(p.SESSION_DIMS))

_METRIC = (
    Parameter("name", "names", "names of metrics", required=True),
    Parameter("tag", "names", "only samples with one of these tags"),
    Parameter("by", "names", f"group by some of {', '.join(metrics.BY)}, tag:KEY; the name is always there"),
)
_METRIC_DIMS = tuple(health.dimensions(metrics.BY[1:]))
_AGG = Parameter("agg", "words", "aggregates", metrics.AGGS, "avg")

TABLE: tuple[Endpoint, ...] = (
    Endpoint(
        "summary",
        "Release health of a span",
        "One row, or one for each group of by: counts, rates with the share of unknown ends, adoption, hangs, "
        "durations, first and last seen. compare=previous adds prev_ columns of the span of the same length before.",
        (
            *p.COMMON,
            p.BY,
            Parameter("compare", "word", "add columns prev_*", ("previous",)),
            p.FAILURES,
            p.sort("-sessions", (*(c.name for c in _DIMS), *(c.name for c in health.SUMMARY_COLUMNS))),
            p.limit(),
            Parameter("zero", "flag", "rows also for groups without a session in the span", ("0", "1"), "0"),
        ),
        (*health.SUMMARY_COLUMNS, *_DIMS),
        health.summary,
        len(health.SUMMARY),
        "from=-7d&by=version",
    ),
    Endpoint(
        "sessions/timeseries",
        "Sessions over time",
        "A row for each bucket and group; buckets are aligned to the epoch in UTC. attribute=start counts crashes, "
        "hangs and ends where their session began, attribute=event when they happened.",
        (
            *p.COMMON,
            *p.BUCKETS,
            p.BY,
            p.measures("started,crashed,hung", (*MEASURES, *SHARES)),
            Parameter("attribute", "word", "when a crash or hang counts", ("start", "event"), "start"),
            p.FAILURES,
            Parameter("min_sessions", "count", "rates of fewer started sessions are null", default="0", high=10**8),
        ),
        (
            health.TIME,
            *_DIMS,
            *(measure.column for measure in MEASURES.values()),
            *(column for _, column in SHARES.values()),
        ),
        health.timeseries,
        1,
        "from=-7d&interval=1h&measures=started,crashed,crash_free_rate&by=version&top=5",
    ),
    Endpoint(
        "hangs/timeseries",
        "Hangs over time",
        "Hangs by when they began, with the time to recover.",
        (*p.COMMON, *p.BUCKETS, p.BY, p.measures("count", tuple(HANG_MEASURES))),
        (health.TIME, *_DIMS, *(measure.column for measure in HANG_MEASURES.values())),
        health.hangs_timeseries,
        1,
        "from=-7d&measures=count,ttr_p50",
    ),
    Endpoint(
        "values/{dim}",
        "Values of a dimension",
        "Products, versions and the other dimensions of sessions in the span; events, categories, groups, exceptions, "
        "metrics and tags as the apps named them. Versions are sorted newest first, others by count.",
        (
            Parameter("dim", "word", "the dimension", values.DIMS, required=True),
            *(parameter for parameter in p.COMMON if parameter.name not in ("q", "has")),
            Parameter("q", "text", "a text that the value contains"),
            p.limit(),
            Parameter("placeholder", "text", "the value of one row when there is none"),
        ),
        values.COLUMNS,
        values.values,
        len(values.COLUMNS),
        "product=editor",
    ),
    Endpoint(
        "sessions",
        "Sessions",
        "One page of sessions. state=, state_ever= and event= look into the records of the sessions that pass the "
        "other filters, for at most two seconds: meta.truncated says that the cursor goes on where that ended.",
        (
            *p.COMMON,
            Parameter("at", "word", "which time lies in the span", ("start", "overlap", "end"), "overlap"),
            Parameter("state", "texts", "path:value that the state has now; repeat it for more"),
            Parameter("state_ever", "texts", "path:value that the state had at any time"),
            Parameter("event", "names", "only sessions with an event of one of these names"),
            p.sort("-started_at", sessions.SORTS),
            p.limit(),
            p.CURSOR,
        ),
        sessions.COLUMNS,
        sessions.sessions,
        len(sessions.COLUMNS),
        "from=-7d&status=crashed&sort=-ended_at&limit=5",
    ),
    Endpoint(
        "transitions",
        "Changes of status",
        "The newest sessions of the span: the status at its begin, a row for each change, and the last one again "
        "at its end. With sample=interval a row for each bucket instead.",
        (
            *p.COMMON,
            p.INTERVAL,
            p.POINTS,
            Parameter("limit_sessions", "count", "at most so many sessions", default="20", low=1, high=50),
            Parameter("sample", "word", "a row for each bucket", ("interval",)),
        ),
        sessions.TRANSITIONS,
        sessions.transitions,
        len(sessions.TRANSITIONS),
        "from=-1d&limit_sessions=5",
    ),
    Endpoint(
        "state",
        "State at a time",
        "The flat state of a session at a time; with diff= only what differs between the two times, with before_end= "
        "what changed in so many seconds before the session's end.",
        (
            Parameter("session", "text", "the id of the session", required=True),
            Parameter("at", "time", "the time; default now"),
            Parameter("diff", "time", "another time to compare with"),
            Parameter("before_end", "count", "seconds before the end, or before the newest record", low=1, high=10**7),
            p.FORMAT,
        ),
        (*state.COLUMNS, *state.DIFF),
        state.state,
        len(state.COLUMNS),
        "session=01890a5d-ac96-774b-bcce-000000000001",
    ),
    Endpoint(
        "crashes",
        "Crash groups",
        "A row for each group with a crash in the span that passes the filters; first and last are of all time. "
        "regressed: in the span it was first seen in a version newer than one that had 20 sessions and not it.",
        (
            *p.COMMON,
            Parameter("by", "words", "group by this", ("signature",), "signature"),
            p.sort("-count", tuple(column.name for column in crashes.CRASHES)),
            p.limit(),
        ),
        crashes.CRASHES,
        crashes.crashes,
        len(crashes.CRASHES),
        "from=-7d&sort=-first_seen_at&limit=5",
    ),
    Endpoint(
        "hangs",
        "Hangs",
        "One page of the hangs that began in the span. A session lists its newest 64.",
        (
            *p.COMMON,
            Parameter("outcome", "words", "only hangs that came to this", hangs.OUTCOMES),
            p.sort("-started_at", hangs.SORTS),
            p.limit(),
            p.CURSOR,
        ),
        hangs.COLUMNS,
        hangs.hangs,
        len(hangs.COLUMNS),
        "from=-7d&outcome=ongoing,crashed",
    ),
    Endpoint(
        "hangs/groups",
        "Hang groups",
        "A row for each group of hangs whose stack is known, with one in the span that passes the filters.",
        (*p.COMMON, p.sort("-count", tuple(column.name for column in crashes.HANGS)), p.limit()),
        crashes.HANGS,
        crashes.hang_groups,
        len(crashes.HANGS),
        "from=-7d",
    ),
    Endpoint(
        "hangs/distribution",
        "How long hangs take",
        "The hangs that began in the span and are over, by their length.",
        (
            *p.COMMON,
            Parameter("outcome", "words", "only hangs that came to this", hangs.OUTCOMES),
            Parameter("bounds", "numbers", "limits of the buckets in seconds", default="1,2,5,10,30,60,300"),
        ),
        hangs.DISTRIBUTION,
        hangs.distribution,
        len(hangs.DISTRIBUTION),
        "from=-7d",
    ),
    Endpoint(
        "events",
        "Events",
        "One page of events of the sessions that match, by time. At most 300 sessions are looked into, for at most two "
        "seconds: meta.truncated says that there may be more.",
        (
            *(parameter for parameter in p.COMMON if parameter.name != "q"),
            Parameter("name", "names", "names of events"),
            Parameter("category", "names", "categories"),
            Parameter("severity", "words", "levels", LEVELS),
            Parameter("group", "names", "groups"),
            Parameter("label", "names", "events with one of these labels"),
            Parameter("q", "text", "a text in name, message or exception"),
            Parameter("order", "word", "which come first: the oldest or the newest", ("asc", "desc"), "desc"),
            p.limit(),
            p.CURSOR,
        ),
        events.COLUMNS,
        events.events,
        len(events.COLUMNS),
        "from=-1d&severity=error,critical&limit=10",
    ),
    Endpoint(
        "events/timeseries",
        "Events over time",
        "Counts from the roll-ups: not finer than a minute, than an hour for spans that begin more than 2 days ago, "
        "than a day beyond 90 days. With filters or dimensions beyond product and version the records of the 50 newest "
        "sessions are counted instead.",
        (
            *p.COMMON,
            *p.BUCKETS,
            Parameter("by", "words", "group by these", counted.BY),
            Parameter("name", "names", "names of events"),
            Parameter("category", "names", "categories"),
            Parameter("severity", "words", "levels", LEVELS),
        ),
        (
            health.TIME,
            *health.dimensions(counted.BY),
            counted.COUNT,
            counted.SESSIONS,
        ),
        counted.events_timeseries,
        1,
        "from=-1d&by=severity&interval=1h",
    ),
    Endpoint(
        "metrics",
        "Catalogue of metrics",
        "The metrics that were logged in the span; counts are of all time.",
        (
            *p.SPAN,
            p.FILTERS[0],
            Parameter("name", "names", "names; * and ? stand for any letters"),
            Parameter("type", "words", "types", METRIC_TYPES),
            p.sort("name", tuple(column.name for column in metrics.CATALOGUE)),
            p.limit(),
            p.FORMAT,
        ),
        metrics.CATALOGUE,
        metrics.metrics,
        len(metrics.CATALOGUE),
        "from=-7d&name=frame*",
    ),
    Endpoint(
        "metrics/timeseries",
        "Metrics over time",
        "Aggregates from the roll-ups, as fine as events/timeseries. value is the first of agg. Quantiles are right "
        "within 1 %; those of histograms are what Prometheus' histogram_quantile gives.",
        (*p.COMMON, *p.BUCKETS, *_METRIC, _AGG),
        (health.TIME, metrics.NAME, *_METRIC_DIMS, *metrics.AGG_COLUMNS, metrics.VALUE),
        metrics.timeseries,
        2,
        "from=-1d&name=frame_ms&agg=p50,p95&by=version&interval=1h",
    ),
    Endpoint(
        "metrics/summary",
        "Metrics of a span in one line",
        "One row for each metric and group.",
        (*p.COMMON, *_METRIC, _AGG, p.TOP),
        (metrics.NAME, *_METRIC_DIMS, metrics.UNIT, *metrics.AGG_COLUMNS, metrics.VALUE),
        metrics.summary,
        1,
        "from=-1d&name=frame_ms&agg=avg,p95,max,count&by=version",
    ),
    Endpoint(
        "metrics/distribution",
        "How the samples of a metric are distributed",
        "Histograms by their own buckets, gauges and timers by 20 steps of equal length.",
        (*p.COMMON, *_METRIC, p.TOP),
        (metrics.NAME, *_METRIC_DIMS, *metrics.DISTRIBUTION),
        metrics.distribution,
        1,
        "from=-1d&name=frame_ms",
    ),
    Endpoint(
        "annotations",
        "Marks for charts",
        "First sessions of versions, buckets with many more crashes than usual, hangs, starts of this server, and "
        "events named deploy, deployment or deployed; of each kind the newest 200.",
        (
            *p.COMMON,
            p.INTERVAL,
            p.POINTS,
            p.TOP,
            Parameter("kinds", "words", "kinds of marks", counted.KINDS, "release"),
        ),
        counted.ANNOTATIONS,
        counted.annotations,
        len(counted.ANNOTATIONS),
        "from=-30d&kinds=release,crash_spike",
    ),
)
