"""Which pods an EndpointSlice names."""

from __future__ import annotations

from typing import Any

from torpor.cluster.addresses import addresses, ready
from torpor.endpoint import Endpoint


def one(address: str, **conditions: bool) -> dict[str, Any]:
    return {"addresses": [address], "conditions": conditions}


def of(*endpoints: dict[str, Any], port: int = 8080) -> dict[str, Any]:
    return {"ports": [{"port": port}], "endpoints": list(endpoints)}


def test_pods_that_end_are_left_out_and_others_are_as_the_kubelet_finds_them() -> None:
    slices = [
        of(one("10.0.0.2", serving=True), one("10.0.0.3", serving=False, ready=True)),
        of(one("10.0.0.1", serving=True), one("10.0.0.4", serving=True, terminating=True), port=9000),
    ]
    first, second, third = Endpoint("10.0.0.1", 9000), Endpoint("10.0.0.2", 8080), Endpoint("10.0.0.3", 8080)
    assert addresses(slices) == {first: True, second: True, third: False}
    assert ready(slices) == (first, second)


def test_an_address_says_which_pod_it_is() -> None:
    named = {**one("10.0.0.1"), "targetRef": {"kind": "Pod", "name": "hello-00001-x"}}
    found = sorted(addresses([of(named, one("10.0.0.2"))]))
    assert [each.instance for each in found] == ["hello-00001-x", ""]


def test_a_pod_in_two_slices_is_one() -> None:
    slices = [of(one("10.0.0.1", serving=True)), of(one("10.0.0.1", serving=False))]
    assert addresses(slices) == addresses(reversed(slices)) == {Endpoint("10.0.0.1", 8080): True}


def test_what_has_no_address_or_port_yet_is_left_out() -> None:
    empty: list[dict[str, Any]] = [
        {},
        {"ports": None, "endpoints": None},
        {"ports": [], "endpoints": [one("10.0.0.1")]},
        of({"addresses": [], "conditions": {}}),
        {"ports": [{"port": 1}]},
    ]
    assert addresses(empty) == {}


def test_what_says_nothing_of_itself_serves() -> None:
    assert ready([of({"addresses": ["10.0.0.1"]})]) == (Endpoint("10.0.0.1", 8080),)
