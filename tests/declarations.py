# ruff: noqa: E501 - a fault is one line, and shown here as it is printed
"""Declarations that are wrong, each with what says so: one table for whoever judges declarations.

``torpor validate`` gives these very lines; a cluster's API server refuses the same, and names the same fields.
"""

from __future__ import annotations

from typing import NamedTuple

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


class Wrong(NamedTuple):
    """One wrong line of a ``spec``."""

    line: str
    fault: str
    """``LINE: FIELD: MESSAGE`` of the one fault."""
    server: str | None = ""
    """What an API server says where it has another name for the field than the fault; ``None``: it sees none."""

    @property
    def field(self) -> str:
        """The field that is at fault."""
        return self.fault.split(": ")[1]


FUNCTION_FAULTS = [
    Wrong("containerConcurency: 3", "5: spec.containerConcurency: is not a field here, did you mean 'containerConcurrency'?"),
    Wrong("container_concurrency: 3", "5: spec.container_concurrency: is not a field here, did you mean 'containerConcurrency'?"),
    Wrong("containerconcurrency: 3", "5: spec.containerconcurrency: is not a field here, did you mean 'containerConcurrency'?"),
    Wrong("zone: x", "5: spec.zone: is not a field here, one of containerConcurrency, env, http, image, imagePullSecrets, resources, scaling, source, timeoutSeconds was expected"),
    Wrong("scaling: {window_seconds: 3}", "5: spec.scaling.window_seconds: is not a field here, did you mean 'window'?"),
    Wrong("containerConcurrency: -1", "5: spec.containerConcurrency: is -1, at least 0 was expected"),
    Wrong("containerConcurrency: 1001", "5: spec.containerConcurrency: is 1001, at most 1000 was expected"),
    Wrong("containerConcurrency: '3'", "5: spec.containerConcurrency: is '3', a whole number was expected"),
    Wrong("containerConcurrency: true", "5: spec.containerConcurrency: is True, a whole number was expected"),
    Wrong("containerConcurrency: 2.5", "5: spec.containerConcurrency: is 2.5, a whole number was expected"),
    Wrong("timeoutSeconds: 0", "5: spec.timeoutSeconds: is 0, more than 0 was expected"),
    Wrong("timeoutSeconds: 3601", "5: spec.timeoutSeconds: is 3601, at most 3600 was expected"),
    Wrong("timeoutSeconds: 10s", "5: spec.timeoutSeconds: is '10s', a number was expected"),
    Wrong("timeoutSeconds: .inf", "5: spec.timeoutSeconds: is inf, a finite number was expected"),
    Wrong("timeoutSeconds:", "5: spec.timeoutSeconds: is empty, a value was expected: give it one, or leave it out"),
    Wrong("env: {A: b}", "5: spec.env: is {'A': 'b'}, a list was expected"),
    Wrong("env: [{name: A}]", "5: spec.env[0]: has no value, value or valueFrom was expected"),
    Wrong("env: [{name: A, valeu: b}]", "5: spec.env[0].valeu: is not a field here, did you mean 'value'?"),
    Wrong("env: [{name: A, value: b, valueFrom: {secretKeyRef: {name: a, key: b}}}]", "5: spec.env[0].valueFrom: stands beside 'value', one of them was expected"),
    Wrong("env: [{name: A, valueFrom: {}}]", "5: spec.env[0].valueFrom: is empty, secretKeyRef or configMapKeyRef was expected"),
    Wrong("env: [{name: A, valueFrom: {secretKeyRef: {name: a, key: b}, configMapKeyRef: {name: a, key: b}}}]", "5: spec.env[0].valueFrom.configMapKeyRef: stands beside 'secretKeyRef', one of them was expected"),
    Wrong("env: [{name: A, valueFrom: {secretKeyRef: {name: A, key: b}}}]", "5: spec.env[0].valueFrom.secretKeyRef.name: is 'A', lower-case letters, digits, inner '-' and '.' were expected"),
    Wrong("env: [{name: A, valueFrom: {secretKeyRef: {name: a, key: b/c}}}]", "5: spec.env[0].valueFrom.secretKeyRef.key: is 'b/c', letters, digits, '-', '_' and '.' were expected"),
    Wrong("env: [{name: A, valueFrom: {secretKeyRef: {name: a, key: b, optional: 1}}}]", "5: spec.env[0].valueFrom.secretKeyRef.optional: is 1, true or false was expected"),
    Wrong("image: Resize:1", "5: spec.image: is 'Resize:1', an image such as registry.example/name:1.0 was expected"),
    Wrong("resources: {limits: {cpu: 1 core}}", "5: spec.resources.limits.cpu: is '1 core', a quantity such as 100m, 0.5 or 64Mi was expected"),
    Wrong("resources: {limits: {cpu: 1}}", "5: spec.resources.limits.cpu: is 1, a text was expected: quote it"),
    Wrong("resources: {limits: {memory: '0'}}", "5: spec.resources.limits.memory: is '0', more than 0 was expected"),
    Wrong("resources: {requests: {memory: 1Gi}, limits: {memory: 1000Mi}}", "5: spec.resources.requests.memory: is '1Gi', at most the limit (1000Mi) was expected"),
    Wrong("imagePullSecrets: [A]", "5: spec.imagePullSecrets[0]: is 'A', lower-case letters, digits, inner '-' and '.' were expected"),
    Wrong("env: [{name: A, value: 3}]", "5: spec.env[0].value: is 3, a text was expected: quote it"),
    Wrong("env: [{name: 1A, value: b}]", "5: spec.env[0].name: is '1A', letters, digits and '_', not first a digit, were expected"),
    Wrong("env: [{name: K_REVISION, value: b}]", "5: spec.env[0].name: is 'K_REVISION', which the platform sets itself, another name was expected"),
    Wrong("env: [{name: A, value: \"\\0\"}]", "5: spec.env[0].value: has a null character, text without one was expected"),
    Wrong("env: [{name: A, value: b}, {name: A, value: c}]", "5: spec.env[1].name: is 'A' again, a name not yet used was expected"),
    Wrong("env: [A]", "5: spec.env[0]: is 'A', a mapping of fields was expected"),
    Wrong("source: .", "5: spec.source: is '.', a mapping of fields was expected"),
    Wrong("source: {path: 3}", "5: spec.source.path: is 3, a path was expected"),
    Wrong("source: {path: \"a\\nb\"}", "5: spec.source.path: is 'a\\nb', a path of printable characters that a disk can have was expected"),
    Wrong("source: {handler: 'main:'}", "5: spec.source.handler: is 'main:', 'module' or 'module:name' was expected"),
    Wrong("source: {handler: main.py}\n  # no such module", "5: spec.source.handler: is 'main.py', a file '{folder}/main/py.py' was expected"),
    Wrong("source: {path: nowhere}", "5: spec.source.path: there is no folder '{folder}/nowhere', one that exists was expected"),
    Wrong("source: {requirements: no.txt}", "5: spec.source.requirements: there is no file '{folder}/no.txt', one that exists was expected"),
    Wrong("scaling: {minScale: 60}", "5: spec.scaling.minScale: is 60, at most maxScale (50) was expected"),
    Wrong("scaling:\n    initialScale: 3\n    maxScale: 2", "6: spec.scaling.initialScale: is 3, at most maxScale (2) was expected"),
    Wrong("scaling: {maxScale: 0}", "5: spec.scaling.maxScale: is 0, at least 1 was expected"),
    Wrong("scaling: {metric: lag}", "5: spec.scaling.metric: is 'lag', 'concurrency' or 'rps' was expected"),
    Wrong("scaling: {window: 60}", "5: spec.scaling.window: is 60, a duration such as 500ms, 10s, 2m or 1h was expected"),
    Wrong("scaling: {window: 1m30s}", "5: spec.scaling.window: is '1m30s', a duration such as 500ms, 10s, 2m or 1h was expected"),
    Wrong("scaling: {window: 500ms}", "5: spec.scaling.window: is '500ms', 1s to 1h was expected"),
    Wrong("scaling: {parkedFor: 800h}", "5: spec.scaling.parkedFor: is '800h', 1s to 720h was expected"),
    Wrong("http: {paths: [resize]}", "5: spec.http.paths[0]: is 'resize', a URL path that starts with '/' was expected"),
    Wrong("http: {paths: [/a/../b]}", "5: spec.http.paths[0]: is '/a/../b', a path without '//', '.' and '..' was expected"),
    Wrong("http: {paths: [/events/mine]}", f"5: spec.http.paths[0]: is '/events/mine', the platform's own: a path outside {RESERVED} was expected"),
    Wrong("http: {hosts: [Example.com]}", "5: spec.http.hosts[0]: is 'Example.com', a host name in lower case, without a port, was expected"),
    Wrong("http: {hosts: ['127.0.0.1']}", "5: spec.http.hosts[0]: is '127.0.0.1', a host name in lower case, without a port, was expected"),
    Wrong("http: {methods: [get]}", "5: spec.http.methods[0]: is 'get', 'GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE' or 'OPTIONS' was expected"),
    Wrong("http: {maxBodyBytes: 16Mi}", "5: spec.http.maxBodyBytes: is '16Mi', a whole number was expected"),
    Wrong("<<: {a: 1}", "5: spec.'<<': is not a field here, one of containerConcurrency, env, http, image, imagePullSecrets, resources, scaling, source, timeoutSeconds was expected"),
    Wrong("timeoutSeconds: 1\n  timeoutSeconds: 2", "6: spec.timeoutSeconds: is given twice, first in line 5; once was expected"),
]  # fmt: skip
"""By the line at the end of :data:`FUNCTION`."""

TRIGGER_FAULTS = [
    Wrong("filters: [{}]", "6: spec.filters[0]: is empty, one of exact, prefix, suffix, all, any or not was expected"),
    Wrong("filters: [{exact: {type: a}, suffix: {type: b}}]", "6: spec.filters[0].suffix: stands beside 'exact', one dialect a filter was expected: make it two filters"),
    Wrong("filters: [{exact: {}}]", "6: spec.filters[0].exact: has 0 entries, at least 1 was expected"),
    Wrong("filters: [{exact: {type: ''}}]", "6: spec.filters[0].exact.type: is empty, a text of one or more characters was expected"),
    Wrong("filters: [{exact: {Type: a}}]", "6: spec.filters[0].exact.Type: is 'Type', an event attribute's name in lower-case letters and digits was expected"),
    Wrong("filters: [{exact: {data: a}}]", "6: spec.filters[0].exact.data: is 'data', an event attribute's name in lower-case letters and digits was expected"),
    Wrong("filters: [{exact: [a]}]", "6: spec.filters[0].exact: is ['a'], a mapping of names to values was expected"),
    Wrong("filters: [{sql: type = 'a'}]", "6: spec.filters[0].sql: is not a field here, one of all, any, exact, not, prefix, suffix was expected"),
    Wrong("filters: [{any: [{not: {prefx: {type: a}}}]}]", "6: spec.filters[0].any[0].not.prefx: is not a field here, did you mean 'prefix'?"),
    Wrong("filters: [{all: []}]", "6: spec.filters[0].all: has 0 entries, at least 1 was expected"),
    Wrong(f"filters: [{', '.join(['{exact: {type: a}}'] * 65)}]", "6: spec.filters: has 65 entries, at most 64 were expected"),
    Wrong("delivery: {retry: 101}", "6: spec.delivery.retry: is 101, at most 100 was expected"),
    Wrong("delivery: {backoffPolicy: square}", "6: spec.delivery.backoffPolicy: is 'square', 'linear' or 'exponential' was expected"),
    Wrong("delivery: {timeout: PT5S}", "6: spec.delivery.timeout: is 'PT5S', a duration such as 500ms, 10s, 2m or 1h was expected"),
    Wrong("delivery: {deadLetterSink: x}", "6: spec.delivery.deadLetterSink: is not a field here, one of backoffDelay, backoffPolicy, retry, timeout was expected"),
    Wrong("join: {by: subject}", "6: spec.join.by: is 'subject', 'fanoutid' was expected"),
    Wrong("join: {onTimeout: drop}", "6: spec.join.onTimeout: is 'drop', 'deadLetter' or 'partial' was expected"),
    Wrong("join:", "6: spec.join: is empty, a value was expected: give it one, or leave it out"),
    Wrong("parallelism: 0", "6: spec.parallelism: is 0, at least 1 was expected"),
    Wrong("broker: My_Broker", "6: spec.broker: is 'My_Broker', lower-case letters, digits and inner '-' were expected"),
]  # fmt: skip
"""By the line at the end of :data:`TRIGGER`."""

DOCUMENTS: list[tuple[str, list[str]]] = [
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
]  # fmt: skip
"""Whole documents, and all their faults."""
