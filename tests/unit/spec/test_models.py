"""The models as other parts use them: defaults, derived values, and the way through JSON and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from torpor.spec.models import (
    Delivery,
    Filter,
    Function,
    FunctionSpec,
    Join,
    Metadata,
    Scaling,
    Source,
    Subscriber,
    Trigger,
    TriggerSpec,
)

_NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?\Z", fullmatch=True)
_ATTRIBUTES = st.dictionaries(
    st.from_regex(r"[a-z0-9]{1,10}\Z", fullmatch=True).filter(lambda name: name != "data"),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    min_size=1,
)
_FILTERS = st.recursive(
    st.one_of(*(st.builds(Filter, **{dialect: _ATTRIBUTES}) for dialect in ("exact", "prefix", "suffix"))),
    lambda inner: st.one_of(
        st.builds(Filter, not_=inner),
        *(st.builds(Filter, **{d: st.lists(inner, min_size=1, max_size=3)}) for d in ("all", "any")),
    ),
    max_leaves=6,
)
_MILLISECONDS = st.integers(1, 3600_000).map(lambda number: number / 1000)


def test_keys_name_resources_across_namespaces() -> None:
    function = Function(metadata=Metadata(name="resize", namespace="images"))
    assert function.key == "images/resize"
    spec = TriggerSpec(subscriber=Subscriber(function="resize"), broker="pictures")
    trigger = Trigger(metadata=Metadata(name="tiles", namespace="images"), spec=spec)
    assert (trigger.key, trigger.function_key, trigger.broker_key) == (
        "images/tiles",
        "images/resize",
        "images/pictures",
    )


@pytest.mark.parametrize(
    ("spec", "target"),
    [
        (FunctionSpec(), 100),
        (FunctionSpec(container_concurrency=8), 8),
        (FunctionSpec(container_concurrency=8, scaling=Scaling(target=6)), 6),
        (FunctionSpec(container_concurrency=8, scaling=Scaling(target=60)), 8),
        (FunctionSpec(scaling=Scaling(target=60)), 60),
        (FunctionSpec(container_concurrency=8, scaling=Scaling(metric="rps")), 200),
        (FunctionSpec(container_concurrency=8, scaling=Scaling(metric="rps", target=60)), 60),
    ],
)
def test_the_target_is_never_above_the_hard_limit(spec: FunctionSpec, target: float) -> None:
    assert spec.target == target


@given(_NAMES, st.integers(0, 1000), _MILLISECONDS, st.integers(1, 1000))
def test_a_function_goes_through_json_unchanged(
    name: str, concurrency: int, window_seconds: float, max_scale: int
) -> None:
    scaling = Scaling(max_scale=max_scale, min_scale=max_scale, window_seconds=max(1.0, window_seconds))
    source = Source(path=Path("/srv/code"), handler="main:handle", requirements=Path("/srv/code/more.txt"))
    function = Function(
        metadata=Metadata(name=name, labels={"team": "a"}),
        spec=FunctionSpec(source=source, container_concurrency=concurrency, scaling=scaling),
    )
    assert Function.model_validate_json(function.model_dump_json()) == function


@given(_NAMES, st.lists(_FILTERS, max_size=3), _MILLISECONDS)
def test_a_trigger_goes_through_json_unchanged(name: str, filters: list[Filter], seconds: float) -> None:
    trigger = Trigger(
        metadata=Metadata(name=name),
        spec=TriggerSpec(
            filters=tuple(filters),
            subscriber=Subscriber(function="f"),
            delivery=Delivery(backoff_delay_seconds=seconds, timeout_seconds=seconds),
            join=Join(timeout_seconds=seconds),
        ),
    )
    assert Trigger.model_validate_json(trigger.model_dump_json()) == trigger


def test_json_has_the_names_and_durations_of_yaml() -> None:
    function = Function(metadata=Metadata(name="f"), spec=FunctionSpec(scaling=Scaling(window_seconds=90)))
    spec = json.loads(function.model_dump_json())["spec"]
    assert spec["scaling"]["window"] == "90s"
    assert spec["http"]["maxBodyBytes"] == 16 * 1024 * 1024


def test_objects_are_frozen() -> None:
    metadata = Metadata(name="f")
    with pytest.raises(ValidationError, match="frozen"):
        metadata.name = "g"  # type: ignore[misc]
