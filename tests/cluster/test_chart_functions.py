"""The chart of functions: it says what function.yaml says, and refuses what is none."""

from __future__ import annotations

from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.cluster.charts import FUNCTIONS, KUBERNETES, NAMESPACE, Object, helm, refusal, render
from tests.cluster.settings import ROOT
from torpor.spec.objects import function_of, schedule_of, trigger_of

EXAMPLE = FUNCTIONS / "examples" / "greeter-and-images.yaml"


def load(path: Any) -> list[Object]:
    return [one for one in YAML(typ="safe").load_all(path.read_text()) if one]


def example() -> Object:
    [values] = load(EXAMPLE)
    return values


def test_lint() -> None:
    helm("lint", "--strict", *KUBERNETES, "--values", EXAMPLE, FUNCTIONS)


def test_the_example_is_what_the_examples_declare() -> None:
    declared: Object = {"functions": {}, "triggers": {}}
    for folder in ("greeter", "images"):
        for one in load(ROOT / "functions" / folder / "function.yaml"):
            declared[f"{one['kind'].lower()}s"][one["metadata"]["name"]] = one["spec"]
    values = example()
    for spec in values["functions"].values():
        assert spec.pop("image").startswith("registry.example/")
    for spec in declared["functions"].values():
        spec.pop("source", None)
    assert values == declared


def test_objects_are_what_the_platform_reads() -> None:
    values = example()
    found: Object = {"functions": {}, "triggers": {}}
    for one in render(FUNCTIONS, values):
        metadata = one["metadata"]
        assert metadata["namespace"] == NAMESPACE
        assert metadata["labels"]["app.kubernetes.io/instance"] == "release"
        (function_of if one["kind"] == "Function" else trigger_of)(one)
        found[f"{one['kind'].lower()}s"][metadata["name"]] = one["spec"]
    assert found == values


def test_schedules_are_what_the_platform_reads() -> None:
    spec = {"cron": "30 2 * * *", "timeZone": "Europe/Berlin", "event": {"data": {"days": [1, None]}}}
    [one] = render(FUNCTIONS, {"schedules": {"nightly": spec}})
    assert one["spec"] == spec
    assert schedule_of(one).spec.event.data == {"days": [1, None]}


def test_large_numbers_stay_whole() -> None:
    spec = {"image": "a", "http": {"maxBodyBytes": 1024**3}}
    [one] = render(FUNCTIONS, {"functions": {"f": spec}})
    assert one["spec"] == spec
    assert isinstance(one["spec"]["http"]["maxBodyBytes"], int)


def test_nothing_by_default() -> None:
    assert render(FUNCTIONS, {}) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"function": {}}, "additional properties 'function' not allowed"),
        ({"functions": {"f": {"timeoutSeconds": 3}}}, "functions.f.image: is missing"),
        (
            {"functions": {"f": {"image": "a", "scaling": {"windows": "3s"}}}},
            "at '/functions/f/scaling': additional properties 'windows' not allowed",
        ),
        (
            {"functions": {"f": {"image": "a", "scaling": {"window": 3}}}},
            "at '/functions/f/scaling/window': got number, want string",
        ),
        ({"functions": {"F_": {"image": "a"}}}, "'F_' does not match pattern"),
        ({"triggers": {"t": {}}}, "at '/triggers/t': missing property 'subscriber'"),
        ({"schedules": {"s": {}}}, "at '/schedules/s': missing property 'cron'"),
        (
            {"triggers": {"t": {"subscriber": {"function": "f"}, "filters": [{"exakt": {"type": "a"}}]}}},
            "additional properties 'exakt' not allowed",
        ),
        ({"functions": {"f": {"image": "a", "env": [{"name": "A"}]}}}, "at '/functions/f/env/0'"),
    ],
)
def test_wrong_values_are_refused(values: Object, said: str) -> None:
    assert said in refusal(FUNCTIONS, values)
