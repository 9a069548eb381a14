"""The generated files are those of the models, and the schema agrees with the loader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from torpor.spec.documents import parse
from torpor.spec.models import KINDS, Function, Schedule, Trigger
from torpor.spec.schema import files, reference, schema
from torpor.spec.written import write

DOCS = Path(__file__).parents[3] / "docs"
EXAMPLES = sorted(DOCS.parent.joinpath("functions").rglob("function.yaml"))
HEAD = {"apiVersion": "torpor.dev/v1alpha1", "metadata": {"name": "f"}}


@pytest.fixture(scope="module")
def validator() -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(schema())


def function(**spec: object) -> dict[str, object]:
    return {**HEAD, "kind": "Function", "spec": spec}


def trigger(**spec: object) -> dict[str, object]:
    return {**HEAD, "kind": "Trigger", "spec": {"subscriber": {"function": "f"}, **spec}}


@pytest.mark.parametrize("name", files())
def test_generated_files_are_up_to_date(name: str) -> None:
    assert (DOCS / name).read_bytes() == files()[name], "run: python -m torpor.spec.schema"


def test_writes_into_a_folder_that_is_new(tmp_path: Path) -> None:
    write(files(), tmp_path / "new")
    written = {str(path.relative_to(tmp_path / "new")) for path in tmp_path.rglob("*.*")}
    assert written == set(files())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_the_examples_are_valid(validator: jsonschema_rs.Validator, path: Path) -> None:
    documents, _ = parse(path.read_bytes())
    assert documents
    for document in documents:
        validator.validate(document.value)


@pytest.mark.parametrize(
    "document",
    [
        {**HEAD, "kind": "Function"},
        function(),
        function(env=[{"name": "A", "value": "b"}], timeoutSeconds=0.5, source={"handler": "pkg.main:f"}),
        function(scaling={"window": "500s", "target": 1.5, "idle": "zero"}),
        function(http={"paths": ["/a"], "hosts": ["a.org"], "methods": ["GET"]}),
        function(
            image="registry.example:5000/a/f:1@sha256:" + "0" * 64,
            env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}],
            resources={"requests": {"cpu": "0.5", "memory": "64Mi"}},
        ),
        trigger(),
        trigger(filters=[{"not": {"any": [{"exact": {"type": "a"}}, {"prefix": {"type": "b"}}]}}]),
        trigger(join={"timeout": "1m", "onTimeout": "partial"}, delivery={"retry": 0, "timeout": "1s"}),
    ],
)  # fmt: skip
def test_what_is_right_is_valid_and_loads(
    validator: jsonschema_rs.Validator, document: dict[str, Any]
) -> None:
    validator.validate(document)
    KINDS[document["kind"]].model_validate(document, by_name=False, by_alias=True)


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "Function", "metadata": {"name": "f"}},
        {**HEAD},
        {**HEAD, "kind": "Schedule"},
        {**HEAD, "kind": "Function", "metadata": {"name": "Not_A_Name"}},
        function(imge="x"),
        function(env=[{"name": "A", "value": "b", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]),
        function(env=[{"name": "A", "valueFrom": {}}]),
        function(resources={"limits": {"cpu": 1}}),
        function(timeout_seconds=3),
        function(timeoutSeconds=None),
        function(timeoutSeconds=0),
        function(containerConcurrency="3"),
        function(env=[{"name": "A"}]),
        function(env=[{"name": "1A", "value": "b"}]),
        function(scaling={"window": 60}),
        function(scaling={"window": "1m30s"}),
        function(scaling={"target": None}),
        function(http={"methods": ["get"]}),
        function(http={"hosts": ["A.org"]}),
        {**HEAD, "kind": "Trigger", "spec": {}},
        trigger(filters=[{}]),
        trigger(filters=[{"exact": {"type": "a"}, "prefix": {"type": "a"}}]),
        trigger(filters=[{"exact": {"Type": "a"}}]),
        trigger(join={"by": "subject"}),
    ],
)
def test_what_is_wrong_is_not_valid(validator: jsonschema_rs.Validator, document: dict[str, Any]) -> None:
    assert not validator.is_valid(document)


def test_every_field_is_in_the_reference_and_has_a_meaning() -> None:
    text = reference()
    for name, definition in schema()["$defs"].items():
        section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        for field in definition["properties"]:
            [row] = [line for line in section.splitlines() if line.startswith(f"| `{field}` |")]
            assert row.split(" | ")[-1].rstrip(" |"), row


def test_defaults_in_the_schema_are_written_as_in_yaml() -> None:
    scaling = schema()["$defs"]["Scaling"]["properties"]
    assert (scaling["window"]["default"], scaling["scaleDownDelay"]["default"]) == ("1m", "0s")
    assert json.dumps(scaling["targetUtilizationPercentage"]["default"]) == "70"


def test_the_example_in_the_reference_loads() -> None:
    example = reference().partition("```yaml\n")[2].partition("```")[0]
    documents, defects = parse(example.encode())
    assert defects == []
    kinds = [
        type(KINDS[d.value["kind"]].model_validate(d.value, by_name=False, by_alias=True)) for d in documents
    ]
    assert kinds == [Function, Trigger, Schedule]
