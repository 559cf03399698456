"""The tables [[alerts]] and [[webhooks]]: what is wrong in them stops the start and is named."""

import tomllib

import pytest

from datacat.errors import ConfigError
from datacat.server.config import Config, Live, load, settings_doc
from datacat.server.rules import RULES, Alerting, read

HOOK = {"name": "team", "url": "https://hooks.example/secret"}
ALERT = {"name": "a", "rule": "hung_now", "webhooks": ["team"]}


def test_tables_become_rules_and_webhooks(tmp_path):
    file = tmp_path / "server.toml"
    file.write_text(
        "port = 1\n"
        '[[webhooks]]\nname = "team"\nurl = "https://hooks.example/x"\nformat = "slack"\n'
        '[[alerts]]\nname = "rate"\nrule = "crash_free_rate"\nbelow = 0.95\nwebhooks = ["team"]\nproduct = "editor"\n'
    )
    found = load({"config": str(file)}, {}).alerting
    assert [(one.name, one.below, one.product, one.min_sessions) for one in found.alerts] == [
        ("rate", 0.95, "editor", 50)
    ]
    assert found.hook("team").format == "slack"
    assert found.hook("other") is None


def test_without_tables_there_is_nothing_to_watch():
    assert load({}, {}).alerting == Alerting()


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"alerts": 1}, r"alerts=1; use a table for each: \[\[alerts\]\]"),
        ({"alerts": [1]}, r"alerts\[0\]"),
        ({"alerts": [{"name": "x"}]}, r"alerts\[0\]=x.*rule"),
        ({"alerts": [{**ALERT, "rule": "gone"}]}, r"alerts\[0\]=a.*gone"),
        ({"alerts": [{**ALERT, "belo": 1}]}, r"alerts\[0\]=a.*belo"),
        ({"alerts": [{**ALERT, "above": "x"}]}, r"alerts\[0\]=a.*above"),
        ({"alerts": [ALERT]}, r"alerts\.a\.webhooks=team; use names"),
        ({"alerts": [{**ALERT, "webhooks": []}], "webhooks": [HOOK]}, r"alerts\.a\.webhooks"),
        ({"alerts": [ALERT, ALERT], "webhooks": [HOOK]}, r"alerts\.name=a"),
        ({"alerts": [{**ALERT, "name": " "}], "webhooks": [HOOK]}, r"alerts\.name"),
        ({"alerts": [{**ALERT, "below": 1.5}], "webhooks": [HOOK]}, r"alerts\.a\.below=1\.5"),
        ({"alerts": [{**ALERT, "window_h": float("nan")}], "webhooks": [HOOK]}, r"alerts\.a\.window_h"),
        ({"webhooks": [HOOK, HOOK]}, r"webhooks\.name=team"),
        ({"webhooks": [{**HOOK, "format": "fax"}]}, r"webhooks\[0\]=team.*fax"),
        ({"webhooks": [{**HOOK, "headers": {"X": "a\r\nb"}}]}, r"webhooks\.team\.headers"),
    ],
)
def test_what_is_wrong_is_named(tables, said):
    with pytest.raises(ConfigError, match=said):
        read(tables)


@pytest.mark.parametrize("url", ["", "ftp://x", "https:///secret", "hooks.example", "http://[", "http://x:99999"])
def test_a_wrong_address_is_said_and_not_repeated(url):
    with pytest.raises(ConfigError, match=r"webhooks\.team\.url") as caught:
        read({"webhooks": [{**HOOK, "url": url}]})
    assert not url or url not in str(caught.value)


def test_a_reload_takes_other_rules():
    live = Live(Config())
    wanted = Config(alerting=read({"alerts": [ALERT], "webhooks": [HOOK]}))
    assert live.reload(wanted) == (["alerting"], [])
    assert live.now.alerting == wanted.alerting


def test_the_example_of_the_page_is_read_and_every_rule_is_on_it():
    page = settings_doc()
    example = page.split("```toml")[1].split("```")[0]
    assert len(read(tomllib.loads(example)).alerts) == 1
    assert all(f"`{name}`" in page for name in RULES)
