"""Objects of the Kubernetes API become one declaration; a faulty one stops no other."""

from __future__ import annotations

from typing import Any

from torpor.cluster.declarations import Declarations, kept
from torpor.events.declared import Callee
from torpor.events.names import DEFAULT_BROKER
from torpor.events.strays import Stray
from torpor.providers.kubernetes.resources import FUNCTIONS, SCHEDULES, TRIGGERS

GATEWAY = "torpor-gateway-internal.torpor.svc:8082"


def _item(resource: Any, name: str, **spec: Any) -> dict[str, dict[str, Any]]:
    metadata = {"name": name, "namespace": "shop", "resourceVersion": "1"}
    item = {"apiVersion": resource.api, "kind": resource.kind, "metadata": metadata, "spec": spec}
    return {f"shop/{name}": item}


def _trigger(name: str, function: Any = "ship", **spec: Any) -> dict[str, dict[str, Any]]:
    return _item(TRIGGERS, name, subscriber={"function": function}, **spec)


def _schedule(name: str, cron: str = "@hourly", **spec: Any) -> dict[str, dict[str, Any]]:
    return _item(SCHEDULES, name, cron=cron, **spec)


def test_they_become_one_declaration() -> None:
    functions = _item(
        FUNCTIONS, "ship", image="x", timeoutSeconds=7, containerConcurrency=2, scaling={"maxScale": 3}
    )
    found = Declarations(GATEWAY).read(
        functions, _trigger("b") | _trigger("a", broker="orders"), _schedule("s", broker="bills")
    )
    assert [trigger.key for trigger in found.triggers] == ["shop/a", "shop/b"]
    assert [schedule.key for schedule in found.schedules] == ["shop/s"]
    assert found.declared().all_brokers() == {DEFAULT_BROKER, "shop/default", "shop/orders", "shop/bills"}
    assert found.functions == {"shop/ship": Callee(timeout_seconds=7, concurrency=6)}
    assert found.declared().callee("shop/ship").timeout_seconds == 7
    endpoint = found.endpoint()
    assert endpoint is not None
    assert tuple(endpoint) == ("torpor-gateway-internal.torpor.svc", 8082)


def test_a_faulty_one_stops_no_other_and_stays_as_it_was() -> None:
    declarations = Declarations(GATEWAY)
    before = declarations.read({}, _trigger("good") | _trigger("never", 7) | _trigger("changes"), {})
    assert [trigger.key for trigger in before.triggers] == ["shop/changes", "shop/good"]
    assert declarations.read({}, _trigger("good") | _trigger("changes", 7), {}) == before
    assert [trigger.key for trigger in declarations.read({}, _trigger("good"), {}).triggers] == ["shop/good"]


def test_a_faulty_schedule_stays_as_it_was_too() -> None:
    declarations = Declarations(GATEWAY)
    before = declarations.read({}, {}, _schedule("good") | _schedule("never", "@never"))
    assert [schedule.key for schedule in before.schedules] == ["shop/good"]
    assert declarations.read({}, {}, _schedule("good", "61 * * * *")) == before


def test_a_wrong_expression_stops_no_other_trigger() -> None:
    wrong = _trigger("wrong", filters=[{"sql": "type ="}])
    found = Declarations(GATEWAY).read({}, _trigger("good", filters=[{"sql": "type = 'a'"}]) | wrong, {})
    assert [trigger.key for trigger in found.triggers] == ["shop/good"]
    assert kept(wrong.values()) == {Stray("broker.shop.default", "trigger.shop.wrong")}


def test_what_did_not_change_is_not_read_again() -> None:
    declarations = Declarations(GATEWAY)
    first = declarations.read({}, _trigger("t"), {})
    item = _trigger("t")
    item["shop/t"]["metadata"]["resourceVersion"] = "2"
    assert declarations.read({}, item, {}).triggers[0] is first.triggers[0]


def test_what_an_object_names_is_kept_though_it_is_faulty() -> None:
    items = (_trigger("plain", 7) | _trigger("joins", broker="orders", join={})).values()
    assert kept(items) == {
        Stray("broker.shop.default", "trigger.shop.plain"),
        Stray("broker.shop.orders", "trigger.shop.joins"),
        Stray("groups.shop.joins"),
    }
