"""What every page stands on: templates, the policy that browsers keep to, and questions to the query layer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from datacat import __version__
from datacat.errors import WireError
from datacat.server.principal import scope
from datacat.server.problems import Refusal
from datacat.server.query import asked
from datacat.server.query.ground import Ground
from datacat.server.query.shape import Result
from datacat.server.query.summary import chosen
from datacat.server.query.table import TABLE
from datacat.server.router import Answer, Request
from datacat.server.ui.assets import Assets
from datacat.server.ui.words import FILTERS, measured, spark, written

PLACES = (
    ("/", "Overview"),
    ("/sessions", "Sessions"),
    ("/crashes", "Crashes"),
    ("/releases", "Releases"),
    ("/machines", "Machines"),
    ("/service", "Service"),
)
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_ENDPOINTS = {endpoint.path: endpoint for endpoint in TABLE}


class Templates:
    """The templates, with what all of them use. Any thread."""

    def __init__(self, assets: Assets) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.PackageLoader("datacat.server"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters.update(FILTERS)
        self._environment.globals.update(
            asset=assets.address, release=__version__, places=PLACES, written=written, spark=spark, measured=measured
        )

    def page(self, template: str, place: str, token: str = "", **values: Any) -> Answer:
        """Return a whole page; place is the path of the menu's entry that it belongs to.

        token: that of the principal; with one the page offers to sign out.
        """
        body = self._environment.get_template(template).render(place=place, token=token, **values)
        return Answer(200, body.encode(), HEADERS)

    def part(self, template: str, **values: Any) -> Answer:
        """Return a piece of a page, for one that is shown already."""
        return Answer(200, self._environment.get_template(template).render(**values).encode(), HEADERS)


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks the query layer for one reader, at one time. The rows are those of the HTTP API."""

    ground: Ground
    now_us: int
    products: frozenset[str]

    def ask(self, path: str, /, **parameters: object) -> list[dict[str, Any]]:
        """Return the rows of an endpoint. Parameters as in a query; a trailing _ is cut off, empty ones are left out.

        Raises: Refusal 400, as the API does.
        """
        return self.result(path, parameters).rows

    def health(self, columns: Sequence[str], **parameters: object) -> list[dict[str, Any]]:
        """Return the rows of the summary with these columns alone: each costs something. Raises: Refusal 400."""
        return chosen(self.read("summary", parameters), self.ground, columns).rows

    def result(self, path: str, parameters: Mapping[str, object]) -> Result:
        """Return rows, cursor and meta of an endpoint."""
        try:
            return _ENDPOINTS[path].answer(self.read(path, parameters), self.ground)
        except WireError as error:  # a cursor that is not one of ours
            raise Refusal(400, error.message, hint=error.hint) from error

    def read(self, path: str, parameters: Mapping[str, object]) -> asked.Asked:
        """Return the question to an endpoint, checked. Raises: Refusal 400."""
        query = {
            name.rstrip("_"): value if isinstance(value, list) else [str(value)]
            for name, value in parameters.items()
            if value not in ("", None, [])
        }
        try:
            return asked.read(_ENDPOINTS[path], query, self.now_us, self.products)
        except WireError as error:
            raise Refusal(400, error.message, hint=error.hint) from error


def asker(ground: Ground, request: Request, clock_us: Callable[[], int]) -> Asker:
    """Return who asks for this request."""
    return Asker(ground, clock_us(), frozenset(scope(request.principal)))


def parameters_of(path: str) -> tuple[str, ...]:
    """Return the names of the parameters of an endpoint."""
    return tuple(parameter.name for parameter in _ENDPOINTS[path].parameters)
