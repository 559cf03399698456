"""The routes of the query layer: read the question, answer it, write the answer."""

from collections.abc import Callable

from datacat.errors import WireError
from datacat.server.principal import scope
from datacat.server.problems import Refusal
from datacat.server.query import answers, asked
from datacat.server.query.ground import Ground
from datacat.server.query.shape import Endpoint
from datacat.server.query.table import TABLE
from datacat.server.router import Answer, Handler, Request, Route

PREFIX = "/api/query/"


def query_routes(ground: Ground, clock_us: Callable[[], int]) -> list[Route]:
    """Return the table of routes."""
    return [
        Route(
            "GET",
            PREFIX + endpoint.path,
            _handler(endpoint, ground, clock_us),
            "read",
            tuple(one.name for one in endpoint.parameters if f"{{{one.name}}}" not in endpoint.path),
        )
        for endpoint in TABLE
    ]


def _handler(endpoint: Endpoint, ground: Ground, clock_us: Callable[[], int]) -> Handler:
    def handle(request: Request) -> Answer:
        try:
            products = frozenset(scope(request.principal))
            question = asked.read(endpoint, {**request.query, **_path(request)}, clock_us(), products)
            return answers.answer(
                question, endpoint.answer(question, ground), request.environ.get("HTTP_IF_NONE_MATCH", "")
            )
        except WireError as error:
            raise Refusal(400, error.message, hint=error.hint) from error

    return handle


def _path(request: Request) -> dict[str, list[str]]:
    return {name: [value] for name, value in request.path.items()}
