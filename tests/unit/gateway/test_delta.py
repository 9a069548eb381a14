from __future__ import annotations

from typing import Any

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse

from torpor.gateway.delta import Session, Store

T = "type.googleapis.com/thing"


def ask(session: Session, *names: str, **more: Any) -> Any:
    return session.receive(DeltaDiscoveryRequest(type_url=T, resource_names_subscribe=names, **more))


def answer(session: Session, response: DeltaDiscoveryResponse, error: str = "") -> Any:
    request = DeltaDiscoveryRequest(type_url=T, response_nonce=response.nonce)
    if error:
        request.error_detail.message = error
    return session.receive(request)


def sent(response: DeltaDiscoveryResponse) -> dict[str, bytes]:
    return {resource.name: resource.resource.value for resource in response.resources}


def test_what_is_subscribed_to_is_sent_and_acknowledged() -> None:
    store = Store("e")
    change = store.put(T, "a", b"1")
    other = store.put(T, "b", b"1")
    session = Session(store)
    assert session.state(change) is True  # no use for it
    ask(session, "a")
    assert session.state(change) is False
    [response] = session.send()
    assert sent(response) == {"a": b"1"}
    assert response.resources[0].version == "e.1"
    assert session.send() == []
    assert session.state(change) is False
    assert answer(session, response) is None
    assert session.state(change) is True
    assert session.state(other) is True


def test_a_change_is_sent_to_who_subscribed() -> None:
    store = Store("e")
    session = Session(store)
    ask(session, "a")
    answer(session, session.send()[0])
    change = store.put(T, "a", b"2")
    assert session.changed(T, "a")
    assert not session.changed(T, "b")
    assert session.state(change) is False
    [response] = session.send()
    assert sent(response) == {"a": b"2"}
    answer(session, response)
    assert session.state(change) is True


def test_the_same_again_is_no_change() -> None:
    store = Store("e")
    assert store.put(T, "a", b"1") == store.put(T, "a", b"1")
    assert store.put(T, "a", b"2").version == 2
    assert store.remove(T, "never").version == 0
    assert store.remove(T, "a") == store.remove(T, "a")


def test_an_acknowledgement_of_an_older_version_is_not_one_of_the_newer() -> None:
    store = Store("e")
    session = Session(store)
    store.put(T, "a", b"1")
    ask(session, "a")
    [first] = session.send()
    change = store.put(T, "a", b"2")
    session.changed(T, "a")
    [second] = session.send()
    answer(session, first)
    assert session.state(change) is False
    answer(session, second)
    assert session.state(change) is True


def test_a_refusal_is_told_and_a_mended_resource_sent() -> None:
    store = Store("e")
    session = Session(store)
    broken = store.put(T, "a", b"1")
    ask(session, "a")
    refusal = answer(session, session.send()[0], "no good")
    assert (refusal.names, refusal.error) == (("a",), "no good")
    assert session.state(broken) == "no good"
    assert session.send() == []
    mended = store.put(T, "a", b"2")
    session.changed(T, "a")
    assert session.state(mended) is False
    answer(session, session.send()[0])
    assert session.state(mended) is True


def test_what_is_not_there_is_told_and_sent_once_it_is() -> None:
    store = Store("e")
    session = Session(store)
    ask(session, "a")
    [response] = session.send()
    assert list(response.removed_resources) == ["a"]
    answer(session, response)
    store.put(T, "a", b"1")
    assert session.changed(T, "a")
    assert sent(session.send()[0]) == {"a": b"1"}
    removed = store.remove(T, "a")
    session.changed(T, "a")
    [response] = session.send()
    assert list(response.removed_resources) == ["a"]
    assert session.state(removed) is False
    answer(session, response)
    assert session.state(removed) is True


def test_a_client_that_comes_back_gets_only_what_has_changed() -> None:
    store = Store("e")
    kept = store.put(T, "kept", b"1")
    store.put(T, "changed", b"1")
    store.put(T, "removed", b"1")
    store.put(T, "changed", b"2")
    store.remove(T, "removed")
    session = Session(store)
    had = {"kept": "e.1", "changed": "e.2", "removed": "e.3", "foreign": "x.9"}
    ask(session, *had, initial_resource_versions=had)
    assert session.state(kept) is True
    [response] = session.send()
    assert sent(response) == {"changed": b"2"}
    assert sorted(response.removed_resources) == ["foreign", "removed"]


def test_a_name_that_is_no_longer_subscribed_to_is_left_alone() -> None:
    store = Store("e")
    session = Session(store)
    store.put(T, "a", b"1")
    ask(session, "a")
    [response] = session.send()
    session.receive(DeltaDiscoveryRequest(type_url=T, resource_names_unsubscribe=["a"]))
    answer(session, response)
    change = store.put(T, "a", b"2")
    assert not session.changed(T, "a")
    assert session.state(change) is True
    ask(session, "a")  # it may have dropped it: sent again
    assert sent(session.send()[0]) == {"a": b"2"}
    answer(session, DeltaDiscoveryResponse(nonce="never sent"))


def test_many_resources_go_in_several_responses() -> None:
    store = Store("e")
    session = Session(store)
    changes = [store.put(T, str(number), b"1") for number in range(1200)]
    ask(session, *(str(number) for number in range(1200)))
    responses = session.send()
    assert [len(response.resources) for response in responses] == [500, 500, 200]
    for response in responses:
        answer(session, response)
    assert all(session.state(change) is True for change in changes)
