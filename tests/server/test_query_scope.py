"""A key for one product sees nothing of the others, whatever it asks."""

import pytest
from querying import US

from datacat.server.query.table import TABLE
from tests.server.conftest import Server


@pytest.fixture(scope="module")
def scoped(tmp_path_factory):
    server = Server(folder=tmp_path_factory.mktemp("keys"))
    for product in ("mine", "other"):
        session = server.session(
            product=product, version=f"{product}-1", hostname=f"{product}-host", state={product: 1}
        )
        server.post(f"/api/sessions/{session}/events", json={"name": f"{product}-event", "category": f"{product}-db"})
        server.post(f"/api/sessions/{session}/events", json={"name": "deploy"})
        server.post(
            f"/api/sessions/{session}/metrics", json={"name": f"{product}-metric", "value": 1, "tags": [product]}
        )
        crash = {"name": "x", "level": "critical", "exception_type": f"{product}Error"}
        server.post(f"/api/sessions/{session}/events", json=crash)
        server.post(f"/api/sessions/{session}/crash", json={"reason": "exception"})
        setattr(server, product, session)
    server.now_us += US
    signature = server.store.head(server.other).crash.signature
    return server, server.with_key(server.key("read", "mine")), signature


@pytest.mark.parametrize("endpoint", TABLE, ids=lambda endpoint: endpoint.path)
def test_other_products_do_not_exist(scoped, endpoint):
    server, client, signature = scoped
    dims = next((one.words for one in endpoint.parameters if one.name == "dim"), ("",))
    known = {one.name: one for one in endpoint.parameters}
    for dim in dims:
        query = ["from=-1h"] if "from" in known else []
        if "session" in known and known["session"].required:
            query.append(f"session={server.other}")
        if "name" in known and known["name"].required:
            query.append("name=mine-metric,other-metric")
        if "signature" in known and known["signature"].required:
            query.append(f"signature={signature}&min_support=1")
        for name in ("kinds", "by"):
            if name in known and known[name].words and name == "kinds":
                query.append(f"kinds={','.join(known[name].words)}")
            elif name in known and known[name].words and "product" in known[name].words:
                query.append("by=product,version")
        answer = client.get(f"/api/query/{endpoint.path.replace('{dim}', dim)}?{'&'.join(query)}")
        assert answer.status == 200, answer.body
        assert b"other-" not in answer.body
        assert b"otherError" not in answer.body
        assert server.other.encode() not in answer.body
        rows = answer.json["rows"]
        if endpoint.path in ("state", "suspects"):
            assert rows == []
        asked = client.get(f"/api/query/{endpoint.path.replace('{dim}', dim)}?{'&'.join([*query, 'product=other'])}")
        if "product" in known:
            assert b"other-" not in asked.body
