"""The custom resource definitions are those of the models, and a structural schema's rules are kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from torpor.spec import crds, policies
from torpor.spec.crds import definitions, files
from torpor.spec.documents import parse
from torpor.spec.written import write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

K8S = Path(__file__).parents[3] / "k8s"
_FORBIDDEN = frozenset(
    (
        "$ref",
        "$defs",
        "const",
        "oneOf",
        "anyOf",
        "patternProperties",
        "x-bounds",
        "exclusiveMaximum",
        "definitions",
    )
)


@pytest.mark.parametrize("module", [crds, policies], ids=lambda module: module.__name__)
def test_generated_files_are_up_to_date(module: ModuleType, tmp_path: Path) -> None:
    write(module.files(), tmp_path / "new")
    made = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    folder = K8S / module.__name__.rpartition(".")[2]
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert made == kept, f"run: python -m {module.__name__}"


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from nodes(schema[name], f"{path}[{name}]")


def root(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = definitions()[name]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


@pytest.mark.parametrize("name", files())
def test_every_field_has_a_type_and_nothing_that_a_structural_schema_can_not_have(name: str) -> None:
    for path, node in nodes(root(name)):
        assert "type" in node or "x-kubernetes-preserve-unknown-fields" in node, path
        assert not node.keys() & _FORBIDDEN, path
        assert isinstance(node.get("exclusiveMinimum", True), bool), path


@pytest.mark.parametrize("name", files())
def test_every_field_of_the_spec_says_what_it_is(name: str) -> None:
    for path, node in nodes(root(name)["properties"]["spec"], "spec"):
        if "[" not in path:  # filters say so once
            assert node.get("description"), path


def test_a_cluster_needs_an_image_and_keeps_names_short() -> None:
    schema = root("functions.yaml")
    [rule] = schema["properties"]["spec"]["x-kubernetes-validations"]
    assert (rule["rule"], rule["fieldPath"]) == ("has(self.image)", ".image")
    assert schema["properties"]["metadata"]["properties"]["name"]["maxLength"] == 50
    assert schema["properties"]["spec"]["properties"]["scaling"]["properties"]["minScale"]["default"] == 0


def test_columns_are_what_people_look_for() -> None:
    version = definitions()["functions.yaml"]["spec"]["versions"][0]
    columns = [one["name"] for one in version["additionalPrinterColumns"] if not one.get("priority")]
    assert columns == ["Ready", "Revision", "Instances", "URL", "Age"]
    assert set(version["subresources"]) == {"status", "scale"}


def test_the_files_are_yaml_of_the_definitions() -> None:
    for name, content in files().items():
        documents, defects = parse(content)
        assert not defects
        assert [document.value for document in documents] == [definitions()[name]]


def test_policies_look_as_deep_as_filters_may_stand() -> None:
    policy, binding = policies.filters()
    assert [one["name"] for one in policy["spec"]["variables"]] == [
        *("level1", "level2", "level3", "level4"),
        *("wrong3", "wrong4"),
    ]
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    assert (
        "variables.level3.map(list2, list2.map(list1, list1.map(one, "
        in policy["spec"]["variables"][3]["expression"]
    )
