"""Who asks: the role of a request, what it may do, and for which products."""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from datacat.errors import NotFound
from datacat.server.problems import Refusal
from datacat.store import Head, Query

Right: TypeAlias = Literal["read", "ingest", "admin"]
RIGHTS: dict[str, frozenset[Right]] = {
    "ingest": frozenset({"ingest"}),
    "read": frozenset({"read"}),
    "admin": frozenset({"read", "ingest", "admin"}),
    "loopback": frozenset({"read", "ingest"}),
    "anybody": frozenset({"read", "ingest"}),
    "nobody": frozenset(),
}
"""What each role may do: loopback is a program on this machine while there are no keys, anybody whoever comes while
insecure is set."""

_NO_PRODUCT = ("",)
"""A condition that no session meets: every session has a product."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. key_id and name are those of the key, empty without one; products () means all of them.

    token: what a form of the pages brings back when the principal is signed in with a cookie, else empty.
    """

    role: str
    address: str = ""
    key_id: str = ""
    name: str = ""
    products: tuple[str, ...] = ()
    token: str = ""

    @property
    def rights(self) -> frozenset[Right]:
        """What it may do."""
        return RIGHTS[self.role]

    @property
    def who(self) -> str:
        """The name for the audit log."""
        return self.name or self.role


NOBODY = Principal("nobody")


def scope(principal: Principal) -> tuple[str, ...]:
    """Return the products that the principal may see and write; (): all. For Query.product use narrow()."""
    return principal.products


def narrow(query: Query, principal: Principal) -> Query:
    """Return the query for what the principal may see of it; what it may not see is as if it did not exist."""
    allowed = scope(principal)
    if not allowed:
        return query
    asked = tuple(product for product in query.product if product in allowed) if query.product else allowed
    return replace(query, product=asked or _NO_PRODUCT)


def may_see(principal: Principal, product: str) -> bool:
    """Return whether sessions of the product exist for the principal."""
    return not principal.products or product in principal.products


def check_seen(principal: Principal, head: Head) -> Head:
    """Return the head. Raises: NotFound when it is out of the principal's scope."""
    if not may_see(principal, head.product):
        raise NotFound(head.id)
    return head


def check_writes(principal: Principal, product: str) -> None:
    """Raise Refusal 403 when the principal may not write sessions of the product.

    Not 404: a daemon would take that for a server that has lost the session, and begin it again.
    """
    if not may_see(principal, product):
        raise Refusal(403, f"this key is for other products ({', '.join(principal.products)[:200]})")
