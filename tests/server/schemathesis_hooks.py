"""What schemathesis does not know by itself: NDJSON, and what cannot be said in a query."""

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def ndjson(_context, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


@schemathesis.hook
def filter_query(_context, query):
    """Leave out what no query can say: an empty object is the same as nothing."""
    return not any(isinstance(value, dict) for value in (query or {}).values())
