# ruff: noqa: E501 - a fault is one line, and shown here as it is printed
"""One table: what a person writes wrongly, and the exact line that says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from torpor.spec.load import inspect

if TYPE_CHECKING:
    from pathlib import Path

FUNCTION = """\
apiVersion: torpor.dev/v1alpha1
kind: Function
metadata: {name: f}
spec:
"""
TRIGGER = """\
apiVersion: torpor.dev/v1alpha1
kind: Trigger
metadata: {name: t}
spec:
  subscriber: {function: f}
"""
RESERVED = "/function, /events, /api, /system, /ui, /async-function"


def faults(folder: Path, text: str) -> list[str]:
    folder.joinpath("main.py").write_text("")
    path = folder / "function.yaml"
    path.write_text(text)
    _, found = inspect([path], complete=False)
    return [str(fault).removeprefix(f"{folder}/") for fault in found]


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("containerConcurency: 3", "5: spec.containerConcurency: is not a field here, did you mean 'containerConcurrency'?"),
        ("container_concurrency: 3", "5: spec.container_concurrency: is not a field here, did you mean 'containerConcurrency'?"),
        ("containerconcurrency: 3", "5: spec.containerconcurrency: is not a field here, did you mean 'containerConcurrency'?"),
        ("zone: x", "5: spec.zone: is not a field here, one of containerConcurrency, env, http, image, imagePullSecrets, resources, scaling, source, timeoutSeconds was expected"),
        ("scaling: {window_seconds: 3}", "5: spec.scaling.window_seconds: is not a field here, did you mean 'window'?"),
        ("containerConcurrency: -1", "5: spec.containerConcurrency: is -1, at least 0 was expected"),
        ("containerConcurrency: 1001", "5: spec.containerConcurrency: is 1001, at most 1000 was expected"),
        ("containerConcurrency: '3'", "5: spec.containerConcurrency: is '3', a whole number was expected"),
        ("containerConcurrency: true", "5: spec.containerConcurrency: is True, a whole number was expected"),
        ("containerConcurrency: 2.5", "5: spec.containerConcurrency: is 2.5, a whole number was expected"),
        ("timeoutSeconds: 0", "5: spec.timeoutSeconds: is 0, more than 0 was expected"),
        ("timeoutSeconds: 3601", "5: spec.timeoutSeconds: is 3601, at most 3600 was expected"),
        ("timeoutSeconds: 10s", "5: spec.timeoutSeconds: is '10s', a number was expected"),
        ("timeoutSeconds: .inf", "5: spec.timeoutSeconds: is inf, a finite number was expected"),
        ("timeoutSeconds:", "5: spec.timeoutSeconds: is empty, a value was expected: give it one, or leave it out"),
        ("env: {A: b}", "5: spec.env: is {'A': 'b'}, a list was expected"),
        ("env: [{name: A}]", "5: spec.env[0]: has no value, value or valueFrom was expected"),
        ("env: [{name: A, valeu: b}]", "5: spec.env[0].valeu: is not a field here, did you mean 'value'?"),
        ("env: [{name: A, value: b, valueFrom: {secretKeyRef: {name: a, key: b}}}]", "5: spec.env[0].valueFrom: stands beside 'value', one of them was expected"),
        ("env: [{name: A, valueFrom: {}}]", "5: spec.env[0].valueFrom: is empty, secretKeyRef or configMapKeyRef was expected"),
        ("env: [{name: A, valueFrom: {secretKeyRef: {name: a, key: b}, configMapKeyRef: {name: a, key: b}}}]", "5: spec.env[0].valueFrom.configMapKeyRef: stands beside 'secretKeyRef', one of them was expected"),
        ("env: [{name: A, valueFrom: {secretKeyRef: {name: A, key: b}}}]", "5: spec.env[0].valueFrom.secretKeyRef.name: is 'A', lower-case letters, digits, inner '-' and '.' were expected"),
        ("env: [{name: A, valueFrom: {secretKeyRef: {name: a, key: b/c}}}]", "5: spec.env[0].valueFrom.secretKeyRef.key: is 'b/c', letters, digits, '-', '_' and '.' were expected"),
        ("env: [{name: A, valueFrom: {secretKeyRef: {name: a, key: b, optional: 1}}}]", "5: spec.env[0].valueFrom.secretKeyRef.optional: is 1, true or false was expected"),
        ("image: Resize:1", "5: spec.image: is 'Resize:1', an image such as registry.example/name:1.0 was expected"),
        ("resources: {limits: {cpu: 1 core}}", "5: spec.resources.limits.cpu: is '1 core', a quantity such as 100m, 0.5 or 64Mi was expected"),
        ("resources: {limits: {cpu: 1}}", "5: spec.resources.limits.cpu: is 1, a text was expected: quote it"),
        ("resources: {limits: {memory: '0'}}", "5: spec.resources.limits.memory: is '0', more than 0 was expected"),
        ("resources: {requests: {memory: 1Gi}, limits: {memory: 1000Mi}}", "5: spec.resources.requests.memory: is '1Gi', at most the limit (1000Mi) was expected"),
        ("imagePullSecrets: [A]", "5: spec.imagePullSecrets[0]: is 'A', lower-case letters, digits, inner '-' and '.' were expected"),
        ("env: [{name: A, value: 3}]", "5: spec.env[0].value: is 3, a text was expected: quote it"),
        ("env: [{name: 1A, value: b}]", "5: spec.env[0].name: is '1A', letters, digits and '_', not first a digit, were expected"),
        ("env: [{name: K_REVISION, value: b}]", "5: spec.env[0].name: is 'K_REVISION', which the platform sets itself, another name was expected"),
        ("env: [{name: A, value: \"\\0\"}]", "5: spec.env[0].value: has a null character, text without one was expected"),
        ("env: [{name: A, value: b}, {name: A, value: c}]", "5: spec.env[1].name: is 'A' again, a name not yet used was expected"),
        ("env: [A]", "5: spec.env[0]: is 'A', a mapping of fields was expected"),
        ("source: .", "5: spec.source: is '.', a mapping of fields was expected"),
        ("source: {path: 3}", "5: spec.source.path: is 3, a path was expected"),
        ("source: {path: \"a\\nb\"}", "5: spec.source.path: is 'a\\nb', a path of printable characters that a disk can have was expected"),
        ("source: {handler: 'main:'}", "5: spec.source.handler: is 'main:', 'module' or 'module:name' was expected"),
        ("source: {handler: main.py}\n  # no such module", "5: spec.source.handler: is 'main.py', a file '{folder}/main/py.py' was expected"),
        ("source: {path: nowhere}", "5: spec.source.path: there is no folder '{folder}/nowhere', one that exists was expected"),
        ("source: {requirements: no.txt}", "5: spec.source.requirements: there is no file '{folder}/no.txt', one that exists was expected"),
        ("scaling: {minScale: 60}", "5: spec.scaling.minScale: is 60, at most maxScale (50) was expected"),
        ("scaling:\n    initialScale: 3\n    maxScale: 2", "6: spec.scaling.initialScale: is 3, at most maxScale (2) was expected"),
        ("scaling: {maxScale: 0}", "5: spec.scaling.maxScale: is 0, at least 1 was expected"),
        ("scaling: {metric: lag}", "5: spec.scaling.metric: is 'lag', 'concurrency' or 'rps' was expected"),
        ("scaling: {window: 60}", "5: spec.scaling.window: is 60, a duration such as 500ms, 10s, 2m or 1h was expected"),
        ("scaling: {window: 1m30s}", "5: spec.scaling.window: is '1m30s', a duration such as 500ms, 10s, 2m or 1h was expected"),
        ("scaling: {window: 500ms}", "5: spec.scaling.window: is '500ms', 1s to 1h was expected"),
        ("scaling: {parkedFor: 800h}", "5: spec.scaling.parkedFor: is '800h', 1s to 720h was expected"),
        ("http: {paths: [resize]}", "5: spec.http.paths[0]: is 'resize', a URL path that starts with '/' was expected"),
        ("http: {paths: [/a/../b]}", "5: spec.http.paths[0]: is '/a/../b', a path without '//', '.' and '..' was expected"),
        ("http: {paths: [/events/mine]}", f"5: spec.http.paths[0]: is '/events/mine', the platform's own: a path outside {RESERVED} was expected"),
        ("http: {hosts: [Example.com]}", "5: spec.http.hosts[0]: is 'Example.com', a host name in lower case, without a port, was expected"),
        ("http: {hosts: ['127.0.0.1']}", "5: spec.http.hosts[0]: is '127.0.0.1', a host name in lower case, without a port, was expected"),
        ("http: {methods: [get]}", "5: spec.http.methods[0]: is 'get', 'GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE' or 'OPTIONS' was expected"),
        ("http: {maxBodyBytes: 16Mi}", "5: spec.http.maxBodyBytes: is '16Mi', a whole number was expected"),
        ("<<: {a: 1}", "5: spec.'<<': is not a field here, one of containerConcurrency, env, http, image, imagePullSecrets, resources, scaling, source, timeoutSeconds was expected"),
        ("timeoutSeconds: 1\n  timeoutSeconds: 2", "6: spec.timeoutSeconds: is given twice, first in line 5; once was expected"),
    ],
)  # fmt: skip
def test_faults_of_a_functions_spec(tmp_path: Path, spec: str, fault: str) -> None:
    expected = f"function.yaml:{fault}".replace("{folder}", str(tmp_path))
    assert faults(tmp_path, f"{FUNCTION}  {spec}\n") == [expected]


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("filters: [{}]", "6: spec.filters[0]: is empty, one of exact, prefix, suffix, all, any or not was expected"),
        ("filters: [{exact: {type: a}, suffix: {type: b}}]", "6: spec.filters[0].suffix: stands beside 'exact', one dialect a filter was expected: make it two filters"),
        ("filters: [{exact: {}}]", "6: spec.filters[0].exact: has 0 entries, at least 1 was expected"),
        ("filters: [{exact: {type: ''}}]", "6: spec.filters[0].exact.type: is empty, a text of one or more characters was expected"),
        ("filters: [{exact: {Type: a}}]", "6: spec.filters[0].exact.Type: is 'Type', an event attribute's name in lower-case letters and digits was expected"),
        ("filters: [{exact: {data: a}}]", "6: spec.filters[0].exact.data: is 'data', an event attribute's name in lower-case letters and digits was expected"),
        ("filters: [{exact: [a]}]", "6: spec.filters[0].exact: is ['a'], a mapping of names to values was expected"),
        ("filters: [{sql: type = 'a'}]", "6: spec.filters[0].sql: is not a field here, one of all, any, exact, not, prefix, suffix was expected"),
        ("filters: [{any: [{not: {prefx: {type: a}}}]}]", "6: spec.filters[0].any[0].not.prefx: is not a field here, did you mean 'prefix'?"),
        ("filters: [{all: []}]", "6: spec.filters[0].all: has 0 entries, at least 1 was expected"),
        (f"filters: [{', '.join(['{exact: {type: a}}'] * 65)}]", "6: spec.filters: has 65 entries, at most 64 were expected"),
        ("delivery: {retry: 101}", "6: spec.delivery.retry: is 101, at most 100 was expected"),
        ("delivery: {backoffPolicy: square}", "6: spec.delivery.backoffPolicy: is 'square', 'linear' or 'exponential' was expected"),
        ("delivery: {timeout: PT5S}", "6: spec.delivery.timeout: is 'PT5S', a duration such as 500ms, 10s, 2m or 1h was expected"),
        ("delivery: {deadLetterSink: x}", "6: spec.delivery.deadLetterSink: is not a field here, one of backoffDelay, backoffPolicy, retry, timeout was expected"),
        ("join: {by: subject}", "6: spec.join.by: is 'subject', 'fanoutid' was expected"),
        ("join: {onTimeout: drop}", "6: spec.join.onTimeout: is 'drop', 'deadLetter' or 'partial' was expected"),
        ("join:", "6: spec.join: is empty, a value was expected: give it one, or leave it out"),
        ("parallelism: 0", "6: spec.parallelism: is 0, at least 1 was expected"),
        ("broker: My_Broker", "6: spec.broker: is 'My_Broker', lower-case letters, digits and inner '-' were expected"),
    ],
)  # fmt: skip
def test_faults_of_a_triggers_spec(tmp_path: Path, spec: str, fault: str) -> None:
    assert faults(tmp_path, f"{TRIGGER}  {spec}\n") == [f"function.yaml:{fault}"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FUNCTION.replace("v1alpha1", "v1"), ["1: apiVersion: is 'torpor.dev/v1', 'torpor.dev/v1alpha1' was expected", "4: spec: is empty, a value was expected: give it one, or leave it out"]),
        ("kind: Function\nmetadata: {name: f}", ["1: apiVersion: is missing, 'torpor.dev/v1alpha1' was expected"]),
        ("apiVersion: torpor.dev/v1alpha1\nmetadata: {name: f}", ["1: kind: is missing, Function or Trigger was expected"]),
        ("apiVersion: torpor.dev/v1alpha1\nkind: Fnction", ["2: kind: is 'Fnction', Function or Trigger was expected, did you mean 'Function'?"]),
        ("apiVersion: torpor.dev/v1alpha1\nkind: [a]", ["2: kind: is ['a'], Function or Trigger was expected"]),
        ("apiVersion: torpor.dev/v1alpha1\nkind: Function", ["1: metadata: is missing, it has to be given"]),
        ("apiVersion: torpor.dev/v1alpha1\nkind: Trigger\nmetadata: {}", ["1: spec: is missing, it has to be given", "3: metadata.name: is missing, it has to be given"]),
        ("just text", ["1: document: is 'just text', a mapping with apiVersion, kind, metadata and spec was expected"]),
        ("- a", ["1: document: is ['a'], a mapping with apiVersion, kind, metadata and spec was expected"]),
        ("", ["1: declares nothing, a Function or a Trigger was expected"]),
        ("apiVersion: torpor.dev/v1alpha1\nkind: Function\nmetadata: {name: -a, namespace: a.b, labels: {'a b': c}}", [
            "3: metadata.name: is '-a', lower-case letters, digits and inner '-' were expected",
            "3: metadata.namespace: is 'a.b', lower-case letters, digits and inner '-' were expected",
            "3: metadata.labels: has the key 'a b', letters, digits, '-', '_' and '.' were expected, or 'prefix/' before",
        ]),
        ("apiVersion: torpor.dev/v1alpha1\nkind: Function\nmetadata: {name: " + "a" * 51 + ", labels: {a: b c}}", [
            "3: metadata.name: has 51 characters, at most 50 were expected",
            "3: metadata.labels: has the value 'b c', at most 63 letters, digits, '-', '_' and '.' were expected",
        ]),
    ],
)  # fmt: skip
def test_faults_of_a_document(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert faults(tmp_path, text) == [f"function.yaml:{fault}" for fault in expected]


def test_every_fault_of_every_document_is_reported(tmp_path: Path) -> None:
    text = f"{FUNCTION}  timeoutSeconds: 0\n  imge: x\n---\n{TRIGGER}  parallelism: 0\n---\na: [\n"
    assert [fault.split(": ")[:2] for fault in faults(tmp_path, text)] == [
        ["function.yaml:5", "spec.timeoutSeconds"],
        ["function.yaml:6", "spec.imge"],
        ["function.yaml:13", "spec.parallelism"],
        ["function.yaml:16", "YAML"],
    ]
