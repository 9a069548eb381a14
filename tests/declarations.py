# ruff: noqa: E501, UP031 - a fault is one line, and shown here as it is printed
"""Declarations that are wrong, each with what says so: one table for whoever judges declarations.

``torpor validate`` gives these very lines; a cluster's API server refuses the same, and names the same fields.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

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
SCHEDULE = """\
apiVersion: torpor.dev/v1alpha1
kind: Schedule
metadata: {name: s}
spec:
  cron: "@daily"
"""
SCHEDULE_WITHOUT_CRON = SCHEDULE.replace('cron: "@daily"', "broker: b")
RESERVED = "/function, /events, /api, /system, /ui, /async-function"


class Wrong(NamedTuple):
    """One wrong line of a ``spec``."""

    line: str
    fault: str
    """``LINE: FIELD: MESSAGE`` of the one fault."""
    server: str | None = ""
    """What an API server says where it has another name for the field than the fault; ``None`` where it never
    sees the fault: it has no files, JSON neither infinity nor a field twice, and of paths and expressions
    the controller says whether they are right.
    """

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
    Wrong("timeoutSeconds: .inf", "5: spec.timeoutSeconds: is inf, a finite number was expected", None),
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
    Wrong("env: [{name: A, value: b}, {name: A, value: c}]", "5: spec.env[1].name: is 'A' again, a name not yet used was expected", 'spec.env[1]: Duplicate value: {"name":"A"}'),
    Wrong("env: [A]", "5: spec.env[0]: is 'A', a mapping of fields was expected"),
    Wrong("source: .", "5: spec.source: is '.', a mapping of fields was expected"),
    Wrong("source: {path: 3}", "5: spec.source.path: is 3, a path was expected"),
    Wrong("source: {path: \"a\\nb\"}", "5: spec.source.path: is 'a\\nb', a path of printable characters that a disk can have was expected"),
    Wrong("source: {handler: 'main:'}", "5: spec.source.handler: is 'main:', 'module' or 'module:name' was expected"),
    Wrong("source: {handler: main.py}\n  # no such module", "5: spec.source.handler: is 'main.py', a file '{folder}/main/py.py' was expected", None),
    Wrong("source: {path: nowhere}", "5: spec.source.path: there is no folder '{folder}/nowhere', one that exists was expected", None),
    Wrong("source: {requirements: no.txt}", "5: spec.source.requirements: there is no file '{folder}/no.txt', one that exists was expected", None),
    Wrong("scaling: {minScale: 60}", "5: spec.scaling.minScale: is 60, at most maxScale (50) was expected"),
    Wrong("scaling:\n    initialScale: 3\n    maxScale: 2", "6: spec.scaling.initialScale: is 3, at most maxScale (2) was expected"),
    Wrong("scaling: {maxScale: 0}", "5: spec.scaling.maxScale: is 0, at least 1 was expected"),
    Wrong("scaling: {targetAge: 10s}", "5: spec.scaling.targetAge: is given without 'metric: lag', which was expected beside it"),
    Wrong("scaling: {metric: lag, targetAge: 10ms}", "5: spec.scaling.targetAge: is '10ms', 100ms to 24h was expected"),
    Wrong("scaling: {metric: cpu}", "5: spec.scaling.metric: is 'cpu', 'concurrency', 'rps' or 'lag' was expected"),
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
    Wrong("<<: {a: 1}", "5: spec.'<<': is not a field here, one of containerConcurrency, env, http, image, imagePullSecrets, resources, scaling, source, timeoutSeconds was expected", '"spec.<<"'),
    Wrong("timeoutSeconds: 1\n  timeoutSeconds: 2", "6: spec.timeoutSeconds: is given twice, first in line 5; once was expected", None),
    Wrong("env: [{name: %s, value: b}]" % ("A" * 257), "5: spec.env[0].name: has 257 characters, at most 256 were expected"),
    Wrong("env: [{name: PORT, value: b}]", "5: spec.env[0].name: is 'PORT', which the platform sets itself, another name was expected"),
    Wrong("env: [{name: A, valueFrom: {configMapKeyRef: {name: a, key: ..}}}]", "5: spec.env[0].valueFrom.configMapKeyRef.key: is '..', letters, digits, '-', '_' and '.' were expected"),
    Wrong("resources: {limits: {cpu: 0.00m}}", "5: spec.resources.limits.cpu: is '0.00m', more than 0 was expected"),
    Wrong("resources: {requests: {cpu: '2'}, limits: {cpu: 1500m}}", "5: spec.resources.requests.cpu: is '2', at most the limit (1500m) was expected"),
    Wrong("source: {handler: main.}", "5: spec.source.handler: is 'main.', 'module' or 'module:name' was expected"),
    Wrong("source: {path: \"a\\u200bb\"}", "5: spec.source.path: is 'a\\u200bb', a path of printable characters that a disk can have was expected"),
    Wrong("source: {requirements: %s}" % ("a" * 256), f"5: spec.source.requirements: is '{'a' * 76}..., a path of printable characters that a disk can have was expected"),
    Wrong("scaling: {target: 0}", "5: spec.scaling.target: is 0, at least 0.01 was expected"),
    Wrong("http: {paths: [/a//b]}", "5: spec.http.paths[0]: is '/a//b', a path without '//', '.' and '..' was expected"),
    Wrong("http: {paths: [/a b]}", "5: spec.http.paths[0]: is '/a b', a URL path that starts with '/' was expected"),
    Wrong("http: {hosts: ['a.org:80']}", "5: spec.http.hosts[0]: is 'a.org:80', a host name in lower case, without a port, was expected"),
    Wrong("http: {hosts: [%s.org]}" % ("a" * 64), f"5: spec.http.hosts[0]: is '{'a' * 64}.org', a host name in lower case, without a port, was expected"),
]  # fmt: skip
"""By the line at the end of :data:`FUNCTION`."""

TRIGGER_FAULTS = [
    Wrong("filters: [{}]", "6: spec.filters[0]: is empty, one of exact, prefix, suffix, sql, all, any or not was expected"),
    Wrong("filters: [{exact: {type: a}, suffix: {type: b}}]", "6: spec.filters[0].suffix: stands beside 'exact', one dialect a filter was expected: make it two filters"),
    Wrong("filters: [{exact: {}}]", "6: spec.filters[0].exact: has 0 entries, at least 1 was expected"),
    Wrong("filters: [{exact: {type: ''}}]", "6: spec.filters[0].exact.type: is empty, a text of one or more characters was expected"),
    Wrong("filters: [{exact: {Type: a}}]", "6: spec.filters[0].exact.Type: is 'Type', an event attribute's name in lower-case letters and digits was expected, or a path into its data such as data.order.id", "spec.filters[0].exact: Invalid value: has the key 'Type'"),
    Wrong("filters: [{exact: {data: a}}]", "6: spec.filters[0].exact.data: is 'data', an event attribute's name in lower-case letters and digits was expected, or a path into its data such as data.order.id", "spec.filters[0].exact: Invalid value: has the key 'data'"),
    Wrong("filters: [{exact: {data..a: b}}]", "6: spec.filters[0].exact.data..a: is 'data..a', a path such as data.order.items.0.id was expected: at most 256 characters and 16 names, with a backslash before a dot or backslash in a name", None),
    Wrong("filters: [{exact: [a]}]", "6: spec.filters[0].exact: is ['a'], a mapping of names to values was expected"),
    Wrong("filters: [{zone: x}]", "6: spec.filters[0].zone: is not a field here, one of all, any, exact, not, prefix, sql, suffix was expected"),
    Wrong("filters: [{sql: type EQUALS 'a'}]", "6: spec.filters[0].sql: has 'EQUALS' at character 6, an operator or the end was expected", None),
    Wrong("filters: [{sql: \"type = 'a\"}]", "6: spec.filters[0].sql: has a text at character 8, its end was expected: '", None),
    Wrong("filters: [{sql: \"type = 'a' AND (\"}]", "6: spec.filters[0].sql: ends after character 16, an attribute, a value, a function or '(' was expected", None),
    Wrong("filters: [{sql: \"LOVER(type) = 'a'\"}]", "6: spec.filters[0].sql: calls LOVER at character 1, which is no function, did you mean 'LOWER'?", None),
    Wrong("filters: [{sql: LEFT(type) = 'a'}]", "6: spec.filters[0].sql: calls LEFT with 1 argument at character 1, 2 were expected", None),
    Wrong("filters: [{sql: data = 'a'}]", "6: spec.filters[0].sql: looks into data at character 1, which expressions can't: a filter of another dialect, such as exact: {data.order.id: a}, was expected", None),
    Wrong("filters: [{sql: hop < 2147483648}]", "6: spec.filters[0].sql: has a number at character 7, -2147483648 to 2147483647 was expected", None),
    Wrong("filters: [{sql: ''}]", "6: spec.filters[0].sql: is empty, an expression was expected"),
    Wrong("filters: [{sql: type = 'a', exact: {type: a}}]", "6: spec.filters[0].sql: stands beside 'exact', one dialect a filter was expected: make it two filters"),
    Wrong("filters: [{sql: %s}]" % ("a" * 2049), "6: spec.filters[0].sql: has 2049 characters, at most 2048 were expected"),
    Wrong("filters: [{sql: 3}]", "6: spec.filters[0].sql: is 3, a text was expected: quote it"),
    Wrong("filters: [{any: [{not: {prefx: {type: a}}}]}]", "6: spec.filters[0].any[0].not.prefx: is not a field here, did you mean 'prefix'?"),
    Wrong("filters: [{all: []}]", "6: spec.filters[0].all: has 0 entries, at least 1 was expected"),
    Wrong(f"filters: [{', '.join(['{exact: {type: a}}'] * 65)}]", "6: spec.filters: has 65 entries, at most 64 were expected"),
    Wrong("delivery: {retry: 101}", "6: spec.delivery.retry: is 101, at most 100 was expected"),
    Wrong("delivery: {backoffPolicy: square}", "6: spec.delivery.backoffPolicy: is 'square', 'linear' or 'exponential' was expected"),
    Wrong("delivery: {timeout: PT5S}", "6: spec.delivery.timeout: is 'PT5S', a duration such as 500ms, 10s, 2m or 1h was expected"),
    Wrong("delivery: {deadLetterSink: x}", "6: spec.delivery.deadLetterSink: is 'x', a mapping of fields was expected"),
    Wrong("delivery: {deadLetter: x}", "6: spec.delivery.deadLetter: is not a field here, did you mean 'deadLetterSink'?"),
    Wrong("delivery: {deadLetterSink: {}}", "6: spec.delivery.deadLetterSink: is empty, function or broker was expected"),
    Wrong("delivery: {deadLetterSink: {function: f, broker: b}}", "6: spec.delivery.deadLetterSink.broker: stands beside 'function', one of them was expected"),
    Wrong("delivery: {deadLetterSink: {broker: default}}", "6: spec.delivery.deadLetterSink.broker: is 'default', the trigger's own broker, another one was expected"),
    Wrong("delivery: {jitterPercentage: 101}", "6: spec.delivery.jitterPercentage: is 101, at most 100 was expected"),
    Wrong("delivery: {retryAfterMax: 2h}", "6: spec.delivery.retryAfterMax: is '2h', 0s to 1h was expected"),
    Wrong("ordering: type", "6: spec.ordering: is 'type', 'none' or 'key' was expected"),
    Wrong("ordering: key\n  join: {}", "7: spec.join: stands beside 'ordering: key', one of them was expected: a group has no key"),
    Wrong("batch: {size: 1}", "6: spec.batch.size: is 1, at least 2 was expected"),
    Wrong("batch: {wait: 6m}", "6: spec.batch.wait: is '6m', 1ms to 5m was expected"),
    Wrong("ordering: key\n  batch: {}", "7: spec.batch: stands beside 'ordering: key', one of them was expected: a key has one event at once"),
    Wrong("batch: {}\n  join: {}", "7: spec.join: stands beside 'batch', one of them was expected: a group is one call already"),
    Wrong("backlog: {}", "6: spec.backlog.limit: is missing, it has to be given"),
    Wrong("backlog: {limit: 0}", "6: spec.backlog.limit: is 0, at least 1 was expected"),
    Wrong("backlog: {limit: 31}", "6: spec.backlog.limit: is 31, at least parallelism (32) was expected"),
    Wrong("parallelism: 8\n  backlog: {limit: 7}", "7: spec.backlog.limit: is 7, at least parallelism (8) was expected"),
    Wrong("backlog: {limit: 99, onLimit: drop}", "6: spec.backlog.onLimit: is 'drop', 'reject' or 'deadLetterOldest' was expected"),
    Wrong("backlog: {limit: 99, onLimit: deadLetterOldest}\n  ordering: key", "7: spec.ordering: is 'key' beside 'onLimit: deadLetterOldest', 'onLimit: reject' was expected there"),
    Wrong("backlog: {limit: 99}\n  join: {}", "7: spec.join: stands beside 'backlog', one of them was expected: a group needs all its parts"),
    Wrong("rateLimit: {}", "6: spec.rateLimit.events: is missing, it has to be given"),
    Wrong("rateLimit: {events: 0}", "6: spec.rateLimit.events: is 0, at least 1 was expected"),
    Wrong("rateLimit: {events: 5, per: 10ms}", "6: spec.rateLimit.per: is '10ms', 100ms to 24h was expected"),
    Wrong("join: {by: subject}", "6: spec.join.by: is 'subject', 'fanoutid' was expected"),
    Wrong("join: {onTimeout: drop}", "6: spec.join.onTimeout: is 'drop', 'deadLetter' or 'partial' was expected"),
    Wrong("join:", "6: spec.join: is empty, a value was expected: give it one, or leave it out"),
    Wrong("parallelism: 0", "6: spec.parallelism: is 0, at least 1 was expected"),
    Wrong("broker: My_Broker", "6: spec.broker: is 'My_Broker', lower-case letters, digits and inner '-' were expected"),
    Wrong("filters: [{not: {exact: {a: b}, prefix: {a: b}}}]", "6: spec.filters[0].not.prefix: stands beside 'exact', one dialect a filter was expected: make it two filters"),
    Wrong("filters: [{any: [{not: {all: [{exact: {a: b}, prefix: {a: b}}]}}]}]", "6: spec.filters[0].any[0].not.all[0].prefix: stands beside 'exact', one dialect a filter was expected: make it two filters", "spec.filters[0].any[0].not.all[0]: Too many"),
    Wrong("filters: [{any: [{exact: {Type: a}}]}]", "6: spec.filters[0].any[0].exact.Type: is 'Type', an event attribute's name in lower-case letters and digits was expected, or a path into its data such as data.order.id", "spec.filters[0].any[0].exact: Invalid value: has the key 'Type'"),
    Wrong("filters: [{any: [{not: {exact: {Type: a}}}]}]", "6: spec.filters[0].any[0].not.exact.Type: is 'Type', an event attribute's name in lower-case letters and digits was expected, or a path into its data such as data.order.id", "spec.filters: have, at depth 3, the keys 'Type'"),
    Wrong("filters: [{any: [{not: {all: [{suffix: {data: a}}]}}]}]", "6: spec.filters[0].any[0].not.all[0].suffix.data: is 'data', an event attribute's name in lower-case letters and digits was expected, or a path into its data such as data.order.id", "spec.filters: have, at depth 4, the keys 'data'"),
    Wrong("filters: [{not: {not: {not: {not: {exact: {type: a}}}}}}]", "6: spec.filters[0]: is nested 5 levels deep, at most 4 were expected", "spec.filters[0].not.not.not.not"),
    Wrong("filters: [{exact: {type: 3}}]", "6: spec.filters[0].exact.type: is 3, a text was expected: quote it"),
    Wrong("filters: [{prefix: {%s}}]" % ", ".join(f"a{n}: b" for n in range(65)), "6: spec.filters[0].prefix: has 65 entries, at most 64 were expected"),
    Wrong("delivery: {backoffDelay: 0s}", "6: spec.delivery.backoffDelay: is '0s', 1ms to 1h was expected"),
    Wrong("join: {timeout: 8d}", "6: spec.join.timeout: is '8d', a duration such as 500ms, 10s, 2m or 1h was expected"),
    Wrong("broker: %s" % ("a" * 51), "6: spec.broker: has 51 characters, at most 50 were expected"),
]  # fmt: skip
"""By the line at the end of :data:`TRIGGER`."""

CRON_FAULTS = [
    Wrong("cron: 5 4 * *", "6: spec.cron: is '5 4 * *', which has 4 fields, 5 were expected, or 6 with the seconds first"),
    Wrong("cron: 61 * * * *", "6: spec.cron: is '61 * * * *', which has '61' for the minute, 0 to 59 was expected", None),
    Wrong("cron: 0 9 * * MUN", "6: spec.cron: is '0 9 * * MUN', which has 'MUN' for the day-of-week, 0 to 7, SUN to SAT, 5#2 or 5L was expected; did you mean 'SUN'?", None),
    Wrong("cron: '@dayly'", "6: spec.cron: is '@dayly', which is no nickname, one of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly was expected; did you mean '@daily'?"),
    Wrong("cron: 0 0 30 2 *", "6: spec.cron: is '0 0 30 2 *', which never comes due, a day that there is was expected", None),
    Wrong("cron: '%s'" % ("1" * 101), "6: spec.cron: has 101 characters, at most 100 were expected"),
    Wrong("cron: 5", "6: spec.cron: is 5, a text was expected: quote it"),
]  # fmt: skip
"""By the line at the end of :data:`SCHEDULE_WITHOUT_CRON`."""

SCHEDULE_FAULTS = [
    Wrong("timeZone: Europe/Berln", "6: spec.timeZone: is 'Europe/Berln', a time zone such as Europe/Berlin was expected; did you mean 'Europe/Berlin'?", None),
    Wrong("timeZone: New_York", "6: spec.timeZone: is 'New_York', a time zone such as Europe/Berlin was expected; did you mean 'America/New_York'?", None),
    Wrong("timeZone: ../UTC", "6: spec.timeZone: is '../UTC', a time zone such as Europe/Berlin was expected; did you mean 'UTC'?"),
    Wrong("jitter: 25h", "6: spec.jitter: is '25h', 0s to 24h was expected"),
    Wrong("missed: all", "6: spec.missed: is 'all', 'skip', 'run-once' or 'run-all' was expected"),
    Wrong("mised: skip", "6: spec.mised: is not a field here, did you mean 'missed'?"),
    Wrong("suspend: 1", "6: spec.suspend: is 1, true or false was expected"),
    Wrong("broker: B", "6: spec.broker: is 'B', lower-case letters, digits and inner '-' were expected"),
    Wrong("event: {type: ''}", "6: spec.event.type: is empty, a text of one or more characters was expected"),
    Wrong('event: {subject: "a\\nb"}', "6: spec.event.subject: is 'a\\nb', a text without control characters was expected"),
    Wrong("event: {source: %s}" % ("a" * 1025), "6: spec.event.source: has 1025 characters, at most 1024 were expected"),
    Wrong("event: {source: the shop}", "6: spec.event.source: is 'the shop', a URI-reference such as /shop or https://shop.example was expected"),
    Wrong("event: {source: 'a:b:c/%zz'}", "6: spec.event.source: is 'a:b:c/%zz', a URI-reference such as /shop or https://shop.example was expected"),
    Wrong("event: {source: '1a:b'}", "6: spec.event.source: is '1a:b', a URI-reference such as /shop or https://shop.example was expected"),
    Wrong("event: {data: 1, dataText: a}", "6: spec.event.dataText: stands beside 'data', one of them was expected"),
    Wrong("event: {data: {a: .inf}}", "6: spec.event.data: is {'a': inf}, a value that JSON can have was expected", None),
    Wrong("event: {data: %s}" % ("a" * 65_536), "6: spec.event.data: has 65538 bytes, at most 65536 were expected: store more as a blob, and give its address as the extension dataref", None),
    Wrong("event: {dataContentType: text/plain}", "6: spec.event.dataContentType: is given without data, data or dataText was expected beside it"),
    Wrong("event: {data: 1, dataContentType: json}", "6: spec.event.dataContentType: is 'json', a media type such as text/plain was expected"),
    Wrong("event: {extensions: {Key: a}}", "6: spec.event.extensions.Key: is 'Key', an event attribute's name in lower-case letters and digits was expected", "spec.event.extensions"),
    Wrong("event: {extensions: {time: a}}", "6: spec.event.extensions.time: is 'time', which is no extension: the name of one was expected", "spec.event.extensions"),
    Wrong("event: {extensions: {a: ''}}", "6: spec.event.extensions.a: is empty, a text of one or more characters was expected"),
    Wrong("event: {extensions: {%s}}" % ", ".join(f"a{n}: b" for n in range(33)), "6: spec.event.extensions: has 33 entries, at most 32 were expected"),
    Wrong("event: {extensions: {%s}}" % ", ".join(f"a{n}: {'b' * 1000}" for n in range(9)), "6: spec.event.extensions: have, with type, source and subject, 9018 bytes, at most 8192 were expected", None),
]  # fmt: skip
"""By the line at the end of :data:`SCHEDULE`."""

DOCUMENTS: list[tuple[str, list[str], str]] = [
    (FUNCTION.replace("v1alpha1", "v1"), ["1: apiVersion: is 'torpor.dev/v1', 'torpor.dev/v1alpha1' was expected", "4: spec: is empty, a value was expected: give it one, or leave it out"], 'no matches for kind "Function" in version "torpor.dev/v1"'),
    ("kind: Function\nmetadata: {name: f}", ["1: apiVersion: is missing, 'torpor.dev/v1alpha1' was expected"], "apiVersion not set"),
    ("apiVersion: torpor.dev/v1alpha1\nmetadata: {name: f}", ["1: kind: is missing, Function, Trigger or Schedule was expected"], "kind not set"),
    ("apiVersion: torpor.dev/v1alpha1\nkind: Fnction", ["2: kind: is 'Fnction', Function, Trigger or Schedule was expected, did you mean 'Function'?"], 'no matches for kind "Fnction"'),
    ("apiVersion: torpor.dev/v1alpha1\nkind: [a]", ["2: kind: is ['a'], Function, Trigger or Schedule was expected"], "kind isn't string type"),
    ("apiVersion: torpor.dev/v1alpha1\nkind: Function", ["1: metadata: is missing, it has to be given"], "resource name may not be empty"),
    ("apiVersion: torpor.dev/v1alpha1\nkind: Trigger\nmetadata: {}", ["1: spec: is missing, it has to be given", "3: metadata.name: is missing, it has to be given"], "resource name may not be empty"),
    ("just text", ["1: document: is 'just text', a mapping with apiVersion, kind, metadata and spec was expected"], "invalid object"),
    ("- a", ["1: document: is ['a'], a mapping with apiVersion, kind, metadata and spec was expected"], "invalid object"),
    ("", ["1: declares nothing, Function, Trigger or Schedule was expected"], "no objects passed"),
    ("apiVersion: torpor.dev/v1alpha1\nkind: Function\nmetadata: {name: -a, namespace: a.b, labels: {'a b': c}}", [
        "3: metadata.name: is '-a', lower-case letters, digits and inner '-' were expected",
        "3: metadata.namespace: is 'a.b', lower-case letters, digits and inner '-' were expected",
        "3: metadata.labels: has the key 'a b', letters, digits, '-', '_' and '.' were expected, or 'prefix/' before",
    ], 'namespaces "a.b" not found'),
    ("apiVersion: torpor.dev/v1alpha1\nkind: Function\nmetadata: {name: " + "a" * 51 + ", labels: {a: b c}}", [
        "3: metadata.name: has 51 characters, at most 50 were expected",
        "3: metadata.labels: has the value 'b c', at most 63 letters, digits, '-', '_' and '.' were expected",
    ], "metadata.name: Too long"),
]  # fmt: skip
"""Whole documents, all their faults, and what kubectl or the API server says of them."""


RIGHT_FUNCTIONS = [
    "{image: registry.example/f:1}",
    "{image: localhost/f, containerConcurrency: 2.0, timeoutSeconds: 0.5, source: {handler: 'pkg.main:f', path: ../ü}}",
    "{image: f, scaling: {window: 500s, target: 1.5, idle: zero, minScale: 50}}",
    "{image: f, scaling: {maxScale: 1000, minScale: 1000, initialScale: 1000, metric: rps, parkedFor: 720h}}",
    "{image: f, scaling: {metric: lag, target: 10, targetAge: 500ms}}",
    "{image: f, http: {paths: [/, /a, /a/b/], hosts: [a.org, x], methods: [GET], maxBodyBytes: 1}}",
    "{image: 'registry.example:5000/a/f:1@sha256:%s', env: [{name: A, valueFrom: {secretKeyRef: {name: a.b, key: B_c}}}]}" % ("0" * 64),
    "{image: f, env: [{name: A, value: ''}, {name: a, valueFrom: {configMapKeyRef: {name: a, key: b, optional: true}}}]}",
    "{image: f, resources: {requests: {cpu: '0.5', memory: 64Mi}, limits: {cpu: 500m, memory: 64Mi}}, imagePullSecrets: [a]}",
]  # fmt: skip
"""Specs of functions that a cluster takes."""

RIGHT_TRIGGERS = [
    "{subscriber: {function: f}}",
    "{subscriber: {function: f}, broker: b, parallelism: 1000, filters: []}",
    "{subscriber: {function: f}, filters: [{not: {any: [{exact: {type: a}}, {not: {prefix: {type: b, source: /c}}}]}}]}",
    "{subscriber: {function: f}, filters: [{sql: \"type = 'a' AND subject LIKE 'b%'\"}, {exact: {'data.a\\\\.b.0': c}}]}",
    "{subscriber: {function: f}, join: {timeout: 168h, onTimeout: partial}, delivery: {retry: 0, timeout: 1ms, backoffPolicy: linear}}",
    "{subscriber: {function: f}, ordering: none, join: {}}",
    "{subscriber: {function: f}, backlog: {limit: 32, onLimit: deadLetterOldest}, batch: {}, ordering: none}",
    "{subscriber: {function: f}, backlog: {limit: 8}, parallelism: 8, ordering: key}",
    "{subscriber: {function: f}, ordering: none, batch: {size: 1000, wait: 1ms}, rateLimit: {events: 1}}",
    "{subscriber: {function: f}, ordering: key, rateLimit: {events: 100000}, delivery: {retryAfterMax: 0s, deadLetterSink: {function: f}}}",
    "{subscriber: {function: f}, broker: b, delivery: {deadLetterSink: {broker: default}}, rateLimit: {events: 1, per: 24h}}",
]
"""Specs of triggers."""

RIGHT_SCHEDULES = [
    "{cron: 30 2 * * *}",
    "{cron: '*/10 * * * * *', timeZone: Europe/Berlin, jitter: 1500ms, missed: run-once, suspend: true, broker: b}",
    "{cron: '@hourly', event: {data: {a: [1, null, {b: ü}], c: null}}}",
    "{cron: 0 0 L * 5L, event: {type: a, source: b, subject: c, dataText: d, dataContentType: text/csv, extensions: {partitionkey: k}}}",
    "{cron: '@daily', missed: run-all, event: {data: false}}",
    "{cron: '@daily', event: {source: 'https://me:x@[::1]:8080/a/b;c?d=e/f#g?h'}}",
    "{cron: '@daily', event: {source: 'urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66'}}",
    "{cron: '@daily', event: {source: ../a:b%20c}}",
]  # fmt: skip
"""Specs of schedules."""

WHOLE_FUNCTION: dict[str, Any] = json.loads("""{
  "apiVersion": "torpor.dev/v1alpha1", "kind": "Function", "metadata": {"name": "f", "namespace": "default"},
  "spec": {
    "image": "registry.example/f:1",
    "source": {"path": "a/b", "handler": "main:f", "requirements": "r.txt"},
    "env": [
      {"name": "A", "value": "b"},
      {"name": "B", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b", "optional": true}}},
      {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}
    ],
    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "64Mi"}},
    "imagePullSecrets": ["x"], "containerConcurrency": 3, "timeoutSeconds": 2.5,
    "scaling": {
      "maxScale": 9, "minScale": 1, "initialScale": 1, "metric": "rps", "target": 3, "window": "60s", "idle": "zero",
      "targetUtilizationPercentage": 50, "panicWindowPercentage": 20, "panicThresholdPercentage": 200,
      "scaleDownDelay": "0s", "scaleToZeroGracePeriod": "30s", "parkedFor": "10m"
    },
    "http": {"paths": ["/a"], "hosts": ["a.org"], "methods": ["GET"], "maxBodyBytes": 100}
  }
}""")
WHOLE_TRIGGER: dict[str, Any] = json.loads("""{
  "apiVersion": "torpor.dev/v1alpha1", "kind": "Trigger", "metadata": {"name": "t", "namespace": "default"},
  "spec": {
    "broker": "default", "subscriber": {"function": "f"}, "parallelism": 3,
    "filters": [
      {"exact": {"type": "a"}}, {"prefix": {"type": "a"}}, {"suffix": {"type": "a"}}, {"sql": "type = 'a'"}, {"all": [{"exact": {"type": "a"}}]},
      {"any": [{"not": {"any": [{"exact": {"type": "a"}}]}}]}
    ],
    "delivery": {"retry": 3, "backoffPolicy": "linear", "backoffDelay": "1s", "timeout": "1s", "jitterPercentage": 5,
      "retryAfterMax": "1m", "deadLetterSink": {"function": "f"}},
    "rateLimit": {"events": 5, "per": "1s"}, "ordering": "none",
    "join": {"by": "fanoutid", "timeout": "1m", "onTimeout": "partial"}
  }
}""")
WHOLE_SCHEDULE: dict[str, Any] = json.loads("""{
  "apiVersion": "torpor.dev/v1alpha1", "kind": "Schedule", "metadata": {"name": "s", "namespace": "default"},
  "spec": {
    "cron": "30 2 * * *", "timeZone": "Europe/Berlin", "jitter": "1s", "missed": "skip", "suspend": true, "broker": "default",
    "event": {
      "type": "a", "source": "b", "subject": "c", "data": {"a": 1}, "dataContentType": "application/json",
      "extensions": {"a": "b"}
    }
  }
}""")
ODD: list[Any] = [
    True, 0, 1, -1, 0.5, 1e300, 10**12, 10**20, "", " ", "a", "A", "a b", "a.b", "a..b", ".", "..", "-a", "a-", "a_b",
    "/", "//", "/a/", "/a//b", "/a/../b", "/events", "/eventsx", "/%zz", "/ü", "ü", "a\nb", "a\x00b", "\u200b", "a" * 51,
    "a" * 64, "a" * 254, "a" * 257, "a" * 1001, "x" * 256 + "/b", "10s", "0s", "1ms", "2h", "1m30s", "0", "0m", "1.5", "64Mi",
    "1Ei", "999999999999999Pi", "0.000000001", "main.", "a.1b", "1a", "PORT", "K_X", "127.0.0.1", "a.1", "1.a", "a.org.",
    "a.org:80", "zero", "GET", "a/b:", "UP.example/b", [], ["a"], [None], ["/b"], {}, {"a": "b"}, {"zzz": 1}, [{}],
]  # fmt: skip
"""Values of which most are wrong wherever they stand."""
