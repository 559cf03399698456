"""How tests ask the query layer."""

from urllib.parse import urlencode

US = 1_000_000
MINUTE = 60 * US
HOUR = 3600 * US


def ask(server, path, **parameters):
    """Return the envelope of an answer that must be 200."""
    answer = server.get(f"/api/query/{path}?{urlencode(parameters, doseq=True)}")
    assert answer.status == 200, answer.body
    return answer.json


def rows(server, path, **parameters):
    return ask(server, path, **parameters)["rows"]
