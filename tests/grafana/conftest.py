"""Servers that are asked by every dashboard: a fleet, the same with odd names, and nothing at all."""

import pytest

from datacat.store.memory import MemoryStore
from grafana.harness import dashboards, seeded, serving, with_odd_names


@pytest.fixture(scope="session")
def fleet():
    with serving(seeded()) as place:
        yield place


@pytest.fixture(scope="session")
def odd():
    with serving(with_odd_names(seeded(sessions=40, long_events=0))) as place:
        yield place


@pytest.fixture(scope="session")
def nothing():
    with serving(MemoryStore()) as place:
        yield place


@pytest.fixture(params=sorted(dashboards()))
def board(request):
    return dashboards()[request.param]
