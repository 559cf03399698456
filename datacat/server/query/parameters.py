"""The parameters of the query layer, each said once; the table of endpoints is made of them."""

from datacat.server.query.shape import Parameter
from datacat.server.query.spans import DEFAULT_POINTS, MAX_POINTS
from datacat.wire.routes import END_REASONS, STATUS_CODES

MAX_ROWS = 1000
_HELP = (
    'repeat it, or separate values by commas (\\, is a comma, as any in "double quotes" is); empty, * and All mean '
    "no filter, a leading ! means not"
)

FORMAT = Parameter("format", "word", "how the rows are written", ("json", "csv", "ndjson"), "json")
FROM = Parameter(
    "from", "time", "begin of the span: RFC 3339, Unix seconds, ms or us, now-6h, -6h; default 24 h before to"
)
TO = Parameter("to", "time", "end of the span, not included; default now")
SPAN = (FROM, TO)

_REASONS = tuple(reason for reasons in END_REASONS.values() for reason in reasons)
FILTERS = (
    Parameter("product", "filter", f"products; {_HELP}"),
    Parameter("version", "filter", "versions, likewise"),
    Parameter("status", "filter", "status now, likewise", tuple(STATUS_CODES)),
    Parameter("hostname", "filter", "names of hosts, likewise"),
    Parameter("machine", "filter", "ids of machines, likewise"),
    Parameter("session", "filter", "ids of sessions, likewise"),
    Parameter("environment", "filter", "environments, likewise"),
    Parameter("end_reason", "filter", "why they ended, likewise", _REASONS),
    Parameter("daemon", "filter", "ids of daemons, likewise"),
    Parameter("platform", "filter", "platforms, likewise"),
    Parameter("signature", "filter", "groups of crashes or hangs that they had, likewise"),
    Parameter("has", "words", "only sessions with all of these", ("crash", "hang", "exception")),
    Parameter("q", "text", "a text in product, version, hostname or id"),
)
COMMON = (*SPAN, *FILTERS, FORMAT)

INTERVAL = Parameter(
    "interval",
    "length",
    "length of a bucket: auto, 30s, 5m, 1h, 1d, or milliseconds; rounded up to a round one",
    default="auto",
)
POINTS = Parameter(
    "max_points", "count", "at most so many buckets", default=str(DEFAULT_POINTS), low=1, high=MAX_POINTS
)
FILL = Parameter(
    "fill",
    "word",
    "what stands where nothing happened: 0 for counts, null, or no row at all",
    ("zero", "null", "none"),
    "zero",
)
TOP = Parameter("top", "count", "the biggest groups, the rest summed as other", default="10", low=1, high=50)
BUCKETS = (INTERVAL, POINTS, TOP, FILL)

SESSION_DIMS = ("product", "version", "status", "hostname", "machine", "environment", "platform", "end_reason")
BY = Parameter("by", "words", "group by these", SESSION_DIMS)
FAILURES = Parameter("failures", "words", "what counts as a failure for mtbf_seconds", ("crash", "hang"), "crash")
MIN_SESSIONS = Parameter("min_sessions", "count", "rates of fewer started sessions are null", default="0", high=10**8)
CURSOR = Parameter("cursor", "text", "next_cursor of the page before")


def limit(default: int = 100, high: int = MAX_ROWS) -> Parameter:
    """Return the parameter limit."""
    return Parameter("limit", "count", "at most so many rows", default=str(default), low=1, high=high)


def sort(default: str, words: tuple[str, ...]) -> Parameter:
    """Return the parameter sort for the columns named by words."""
    both = tuple(sign + word for word in words for sign in ("", "-"))
    return Parameter("sort", "word", "the column to sort by, with - for descending", both, default)


def measures(default: str, words: tuple[str, ...]) -> Parameter:
    """Return the parameter measures."""
    return Parameter("measures", "words", "the columns to compute", words, default)
