"""Rules of alerts and webhooks, as the tables [[alerts]] and [[webhooks]] of the settings file say them."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

import msgspec

from datacat.errors import ConfigError

Kind: TypeAlias = Literal["new_crash_group", "regression", "crash_free_rate", "hung_now", "no_data", "store"]
Format: TypeAlias = Literal["json", "slack", "ntfy"]

RULES: dict[Kind, str] = {
    "new_crash_group": "a crash group was seen for the first time",
    "regression": "a crash group is back in a version newer than one that was without it",
    "crash_free_rate": "of a version with at least `min_sessions` sessions started in the last `window_h` hours, less "
    "than `below` did not crash",
    "hung_now": "more than `above` sessions of a product hang",
    "no_data": "a product that the server knows has sent nothing for `for_s` seconds",
    "store": "the store takes no writes, or its disk has less than `free_mb` MB free",
}
"""What each rule means."""
TABLES = ("alerts", "webhooks")


class Webhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where messages go. headers go with each request, such as the token of an ntfy server."""

    name: str
    url: str
    format: Format = "json"
    headers: dict[str, str] = {}


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When to say something, and to which webhooks. product empty: each product for itself."""

    name: str
    rule: Kind
    webhooks: tuple[str, ...]
    product: str = ""
    window_h: float = 24.0
    below: float = 0.99
    min_sessions: int = 50
    above: int = 0
    for_s: float = 3600.0
    free_mb: float = 500.0


class Alerting(msgspec.Struct, frozen=True):
    """All rules and webhooks of a server."""

    alerts: tuple[Rule, ...] = ()
    webhooks: tuple[Webhook, ...] = ()

    def hook(self, name: str) -> Webhook | None:
        """Return the webhook with this name; None when there is none (any more)."""
        return next((hook for hook in self.webhooks if hook.name == name), None)


NOTHING = Alerting()


def read(tables: Mapping[str, object]) -> Alerting:
    """Return what the tables of a settings file say. Raises: ConfigError that names table, place and member."""
    found: dict[str, list[Any]] = {}
    for table, kind in (("alerts", Rule), ("webhooks", Webhook)):
        rows = tables.get(table, [])
        if not isinstance(rows, list):
            raise ConfigError(table, rows, f"a table for each: [[{table}]]")
        found[table] = []
        for number, row in enumerate(rows):
            try:
                found[table].append(msgspec.convert(row, kind))
            except msgspec.ValidationError as error:
                name = row.get("name", "") if isinstance(row, dict) else row
                raise ConfigError(f"{table}[{number}]", name, f"what its table may have ({error})") from None
    alerting = Alerting(tuple(found["alerts"]), tuple(found["webhooks"]))
    _check(alerting)
    return alerting


def _check(alerting: Alerting) -> None:
    for table, rows in (("alerts", alerting.alerts), ("webhooks", alerting.webhooks)):
        names = [row.name for row in rows]
        for name in names:
            if not name.strip() or names.count(name) > 1:
                raise ConfigError(f"{table}.name", name, "a name of its own for each")
    for hook in alerting.webhooks:
        try:
            parts = urlsplit(hook.url)
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_url = False
        if not is_url:
            # The address itself may be the secret: it is not repeated.
            raise ConfigError(f"webhooks.{hook.name}.url", "…", "an address that begins with https:// or http://")
        for name, value in hook.headers.items():
            if not name or not (name + value).isprintable() or not (name + value).isascii():
                raise ConfigError(f"webhooks.{hook.name}.headers", name, "names and values of printable ASCII")
    known = {hook.name for hook in alerting.webhooks}
    for rule in alerting.alerts:
        missing = [name for name in rule.webhooks if name not in known]
        if missing or not rule.webhooks:
            shown = ", ".join(missing)
            raise ConfigError(
                f"alerts.{rule.name}.webhooks", shown, f"names of [[webhooks]]: {', '.join(sorted(known))}"
            )
        for member, low, high in (
            ("below", 0.0, 1.0),
            ("window_h", 0.01, 24 * 90),
            ("min_sessions", 1, 10**9),
            ("above", 0, 10**9),
            ("for_s", 1, 90 * 86_400),
            ("free_mb", 0, 10**9),
        ):
            if not low <= getattr(rule, member) <= high:
                raise ConfigError(
                    f"alerts.{rule.name}.{member}", getattr(rule, member), f"a number from {low} to {high}"
                )


def rules_doc() -> str:
    """Return the part of docs/settings.md about alerts."""
    lines = [
        "## alerts and webhooks\n",
        "Tables of the settings file, which a reload reads again. Each alert names a rule and who is told:\n",
        "```toml",
        "[[webhooks]]",
        'name = "team"',
        'url = "https://ntfy.example.org/datacat"',
        'format = "ntfy"    # or json, or slack (also Mattermost, Rocket.Chat)',
        'headers = { Authorization = "Bearer CHANGE-THIS" }',
        "",
        "[[alerts]]",
        'name = "releases"',
        'rule = "crash_free_rate"',
        "below = 0.99",
        "min_sessions = 100",
        'webhooks = ["team"]',
        "```\n",
        "| rule | fires when |",
        "|---|---|",
        *(f"| `{name}` | {about} |" for name, about in RULES.items()),
        "",
        "| member of an alert | default |",
        "|---|---|",
        *(
            f"| `{one.name}` | {'required' if one.required else f'`{one.default!r}`'.replace(chr(39), chr(34))} |"
            for one in msgspec.structs.fields(Rule)
        ),
        "",
        f"`format` is one of {', '.join(get_args(Format))}. What fires is said once, and again when it is over; new",
        "and regressed crash groups are said once. `datacat alerts test` sends a test message.",
    ]
    return "\n".join(lines) + "\n"
