# ruff: noqa: E501 - a fault is one line, and shown here as it is printed
"""Objects of the Kubernetes API as declarations."""

from __future__ import annotations

from typing import Any

import pytest

from torpor.errors import DeclarationError
from torpor.spec.objects import function_of, trigger_of

HEAD: dict[str, Any] = {
    "apiVersion": "torpor.dev/v1alpha1",
    "metadata": {
        "name": "f",
        "namespace": "n",
        "uid": "1",
        "resourceVersion": "7",
        "generation": 2,
        "annotations": {"a": "b"},
        "labels": {"team": "x"},
    },
    "status": {"conditions": []},
}


def test_what_kubernetes_adds_is_left_out() -> None:
    function = function_of(
        {**HEAD, "kind": "Function", "spec": {"image": "a/b:1", "scaling": {"window": "5s"}}}
    )
    assert (function.key, function.metadata.labels) == ("n/f", {"team": "x"})
    assert (function.spec.image, function.spec.scaling.window_seconds) == ("a/b:1", 5.0)
    trigger = trigger_of({**HEAD, "kind": "Trigger", "spec": {"subscriber": {"function": "g"}}})
    assert trigger.function_key == "n/g"


def test_every_fault_names_its_field() -> None:
    spec = {
        "subscriber": {"function": "g"},
        "parallelism": 0,
        "filters": [{"any": [{"exact": {"Type": "a"}}]}],
    }
    with pytest.raises(DeclarationError) as caught:
        trigger_of({**HEAD, "kind": "Trigger", "spec": spec})
    assert caught.value.faults == [
        "spec.filters[0].any[0].exact.Type: is 'Type', an event attribute's name in lower-case letters and digits was expected, or a path into its data such as data.order.id",
        "spec.parallelism: is 0, at least 1 was expected",
    ]  # fmt: skip
