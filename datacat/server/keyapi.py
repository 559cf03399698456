"""Keys and the audit log over HTTP, for admin keys."""

from itertools import islice
from typing import Any

from datacat.errors import WireError
from datacat.server import filters, keys
from datacat.server.audit import Audit
from datacat.server.keys import KeyFile, Ring
from datacat.server.principal import Principal
from datacat.server.problems import Refusal
from datacat.server.router import Answer, Request, Route, as_json
from datacat.wire import times

PATH = "/api/keys"


class KeyApi:
    """The handlers. Any thread."""

    def __init__(self, ring: Ring, audit: Audit, clock_us: Any) -> None:
        self._ring = ring
        self._audit = audit
        self._clock_us = clock_us

    def routes(self) -> list[Route]:
        """Return the table of routes."""
        return [
            Route("GET", PATH, self.keys, "admin"),
            Route("POST", PATH, self.create, "admin"),
            Route("DELETE", PATH + "/{id}", self.revoke, "admin"),
            Route("GET", "/api/audit", self.acts, "admin", ("act", "limit")),
        ]

    def keys(self, _request: Request) -> Answer:
        """GET /api/keys: all keys, never their texts."""
        now_us = self._clock_us()
        return as_json({"keys": [keys.public(key, now_us) for key in self._ring.keys]})

    def create(self, request: Request) -> Answer:
        """POST /api/keys: 201 with the new key; its text is in this answer and nowhere else."""
        now_us = self._clock_us()
        key, text = keys.make(*_wanted(request.json()), now_us)
        self._file().add(key)
        self._ring.reload()
        told = keys.public(key, now_us)
        self._tell("key_created", key.id, request.principal, name=key.name, role=key.role, products=key.products)
        return as_json({**told, "key": text}, 201, {"Location": f"{PATH}/{key.id}", "Cache-Control": "no-store"})

    def revoke(self, request: Request) -> Answer:
        """DELETE /api/keys/{id}: the key, named by its id or its name, is worth nothing from now on."""
        which = request.path["id"]
        removed = self._file().remove(which)
        if removed is None:
            raise Refusal(404, f"there is no key {which[:80]!r}")
        self._ring.reload()
        self._tell("key_revoked", removed.id, request.principal, name=removed.name, role=removed.role)
        return Answer(204)

    def acts(self, request: Request) -> Answer:
        """GET /api/audit: what was done, newest first."""
        limit = filters.count_of(request, "limit", 100, 1, filters.MAX_LIMIT)
        wanted = filters.items(request, "act")
        found = (act for act in self._audit.newest_first() if not wanted or act.get("act") in wanted)
        return as_json({"rows": list(islice(found, limit))})

    def _file(self) -> KeyFile:
        if self._ring.file is None:
            raise Refusal(409, "this server has no data folder to keep keys in", hint="start it with --data-dir")
        return self._ring.file

    def _tell(self, act: str, on: str, by: Principal, **more: Any) -> None:
        self._audit.write(act, on, who=by.who, key_id=by.key_id, address=by.address, **more)


def _wanted(body: object) -> tuple[str, str, list[str], int]:
    """Return name, role, products and the end of its time. Raises: WireError."""
    if not isinstance(body, dict):
        raise WireError("the body is no JSON object")
    found = []
    for field in ("name", "role"):
        value = body.get(field)
        if not isinstance(value, str):
            raise WireError(f"{field} is no text", pointer=f"/{field}")
        found.append(value)
    products = body.get("products")
    products = [] if products is None else products
    if not isinstance(products, list) or not all(isinstance(item, str) for item in products):
        raise WireError("products is no array of texts", pointer="/products")
    expires = body.get("expires_at")
    try:
        expires_at = 0 if expires is None else times.to_us(expires)
    except WireError as error:
        raise WireError(error.message, pointer="/expires_at", hint=error.hint) from error
    return found[0], found[1], products, expires_at
