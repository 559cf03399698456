"""The table of the query layer: every endpoint with its parameters, columns and function."""

from datacat.server.query import health
from datacat.server.query import parameters as p
from datacat.server.query.measures import HANG_MEASURES, MEASURES, SHARES
from datacat.server.query.shape import Endpoint, Parameter

_DIMS = tuple(health.dimensions(p.SESSION_DIMS))

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
)
