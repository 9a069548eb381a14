"""The custom resource definitions of a cluster, made from the models.

``python -m torpor.spec.crds [FOLDER]`` writes them, FOLDER being ``k8s/crds`` by default. What a structural
schema can't say, rules in CEL do, in the words of ``torpor validate``; what is too much for those is in
:mod:`torpor.spec.policies`. What lies between resources the controller says in ``status``.

A change that another version of the API would not understand makes a version of its own (``v1alpha2``,
``v1beta1``), served beside this one; the API server stores one of them and converts by a webhook. So the
names of files and objects have no version in them, and each definition keeps a list of them.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

from ruamel.yaml import YAML

from torpor.spec.models import MAX_FILTER_DEPTH
from torpor.spec.schema import BOUNDS, schema
from torpor.spec.timing import MAX_TEXT_LENGTH, RESERVED_ATTRIBUTES
from torpor.spec.values import RESERVED_PATHS
from torpor.spec.written import main

if TYPE_CHECKING:
    from collections.abc import Sequence

_GROUP: Final = "torpor.dev"
_VERSION: Final = "v1alpha1"
_DROPPED = frozenset(("additionalProperties", "default", "format", "oneOf", "patternProperties", BOUNDS))
# Defaults that `kubectl scale` and printer columns need; the others are the models' alone, so that a newer
# platform may choose better ones.
_DEFAULTS = {
    ("Scaling", "minScale"): 0,
    ("FunctionSpec", "scaling"): {},
    ("TriggerSpec", "broker"): "default",
    ("ScheduleSpec", "broker"): "default",
    ("ScheduleSpec", "timeZone"): "UTC",
    ("ScheduleSpec", "suspend"): False,
}
_REQUIRED = {"Function": ["spec"]}
# What rules say in other words than the schema would, and of the very field.
_RULED = {
    "ValueFrom": ("minProperties", "maxProperties"),
    "DeadLetterSink": ("minProperties", "maxProperties"),
}
_LONGEST_DURATION = 15
_LONGEST_TEXT = 1000
CHECKED_KEYS_DEPTH = 2
"""How deep keys of filters are checked: an API server reckons with lists as long as they may be, and one
level more costs 22 times what it lets a rule cost. :mod:`torpor.spec.policies` has the rest.
"""
_DIALECTS = ("exact", "prefix", "suffix", "sql", "all", "any", "not")


def _rule(rule: str, message: str, field: str | None = None) -> dict[str, str]:
    """``message`` is an expression of CEL, as ``rule`` is."""
    return {"rule": rule, "messageExpression": message} | ({} if field is None else {"fieldPath": field})


def _shown(expression: str) -> str:
    return f'"is \'" + {expression} + "\''


_QUANTITY_IS_POSITIVE = _rule(
    "!isQuantity(self) || quantity(self).isGreaterThan(quantity('0'))",
    _shown("self") + ', more than 0 was expected"',
)
WRONG_KEY = "!{0}.startsWith('data.') && ({0} == 'data' || !{0}.matches('^[a-z0-9]+$'))"
"""Whether a key of a filter is wrong. Paths into data are not looked at: that costs too much."""
EXPECTED_KEY = "an event attribute's name in lower-case letters and digits"
EXPECTED_PATH = "or a path into its data such as data.order.id"
_ATTRIBUTES = _rule(
    f"self.all(name, !({WRONG_KEY.format('name')}))",
    f'"has the key \'" + self.filter(name, {WRONG_KEY.format("name")})[0] + '
    f'"\', {EXPECTED_KEY} was expected, {EXPECTED_PATH}"',
)
_reserved = ", ".join(RESERVED_PATHS)
_PATH = [
    _rule(
        "self.matches('^/[A-Za-z0-9._~!$&\\'()*+,;=:@%/-]*$')",
        _shown("self") + ", a URL path that starts with '/' was expected\"",
    ),
    _rule(
        "!self.contains('//') && !self.matches('(^|/)[.][.]?(/|$)')",
        _shown("self") + ", a path without '//', '.' and '..' was expected\"",
    ),
    _rule(
        f"!self.matches('^({'|'.join(RESERVED_PATHS)})(/|$)')",
        _shown("self") + f", the platform's own: a path outside {_reserved} was expected\"",
    ),
]
_HOST = _rule(
    "self.matches('^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?[.])*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$') && "
    "!self.matches('(^|[.])[0-9]+$')",
    _shown("self") + ', a host name in lower case, without a port, was expected"',
)
_VARIABLE = _rule(
    "self != 'PORT' && !self.startsWith('K_') && !self.startsWith('TORPOR_')",
    _shown("self") + ', which the platform sets itself, another name was expected"',
)


_KEY = _rule(
    "self != '.' && self != '..'", _shown("self") + ", letters, digits, '-', '_' and '.' were expected\""
)
_FILE = _rule(
    "self.matches('^([^\\\\pC\\\\pZ]| )*$') && self.split('/').all(part, bytes(part).size() <= 255)",
    _shown("self") + ', a path of printable characters that a disk can have was expected"',
)
_RESERVED_NAMES = ", ".join(map(repr, RESERVED_ATTRIBUTES))
_NO_EXTENSION = f"!name.matches('^[a-z0-9]+$') || name in [{_RESERVED_NAMES}]"
_EXTENSIONS = _rule(
    f"self.all(name, !({_NO_EXTENSION}))",
    f'"has the key \'" + self.filter(name, {_NO_EXTENSION})[0] + '
    '"\', the name of an extension in lower-case letters and digits was expected"',
)
_NO_CONTROL = _rule(
    "!self.matches('[\\\\x00-\\\\x1f\\\\x7f-\\\\x9f]')",
    '"has a control character, a text without one was expected"',
)


def _one_dialect(field: str) -> dict[str, str]:
    earlier = _DIALECTS[: _DIALECTS.index(field)]
    problem = f"stands beside one of {', '.join(earlier)}"
    return {
        "rule": f"!has(self.{field}) || !({' || '.join(f'has(self.{one})' for one in earlier)})",
        "message": f"{problem}, one dialect a filter was expected: make it two filters",
        "fieldPath": f".{field}",
    }


def _within_max(field: str) -> dict[str, str]:
    most = "(has(self.maxScale) ? self.maxScale : 50)"
    # An expression that writes numbers as text would cost more than all rules together may.
    return {
        "rule": f"!has(self.{field}) || self.{field} <= {most}",
        "message": "is more than maxScale (by default 50), at most that was expected",
        "fieldPath": f".{field}",
    }


def _within_limit(name: str) -> dict[str, str]:
    asked, most = f"self.requests.{name}", f"self.limits.{name}"
    return _rule(
        f"!has(self.requests) || !has(self.limits) || !has({asked}) || !has({most}) || "
        f"quantity({asked}).compareTo(quantity({most})) <= 0",
        f'"is " + {asked} + ", at most the limit (" + {most} + ") was expected"',
        f".requests.{name}",
    )


# Rules for an object, by the name of its model.
_OBJECT_RULES: dict[str, list[dict[str, str]]] = {
    "FunctionSpec": [
        _rule(
            "has(self.image)",
            '"is missing" + (has(self.source) ? ": a cluster runs no source, but the image that '
            '\'torpor build\' makes of it" : ", a container image was expected")',
            ".image",
        )
        | {"reason": "FieldValueRequired"}
    ],
    "Scaling": [_within_max("minScale"), _within_max("initialScale")],
    "Resources": [_within_limit("cpu"), _within_limit("memory")],
    "EnvVar": [
        _rule("has(self.value) || has(self.valueFrom)", '"has no value, value or valueFrom was expected"'),
        _rule(
            "!(has(self.value) && has(self.valueFrom))",
            "\"stands beside 'value', one of them was expected\"",
            ".valueFrom",
        ),
    ],
    "ValueFrom": [
        _rule(
            "has(self.secretKeyRef) || has(self.configMapKeyRef)",
            '"is empty, secretKeyRef or configMapKeyRef was expected"',
        ),
        _rule(
            "!(has(self.secretKeyRef) && has(self.configMapKeyRef))",
            "\"stands beside 'secretKeyRef', one of them was expected\"",
            ".configMapKeyRef",
        ),
    ],
    "DeadLetterSink": [
        _rule("has(self.function) || has(self.broker)", '"is empty, function or broker was expected"'),
        _rule(
            "!(has(self.function) && has(self.broker))",
            "\"stands beside 'function', one of them was expected\"",
            ".broker",
        ),
    ],
    "TriggerSpec": [
        _rule(
            "!has(self.delivery) || !has(self.delivery.deadLetterSink) || "
            "!has(self.delivery.deadLetterSink.broker) || "
            "self.delivery.deadLetterSink.broker != (has(self.broker) ? self.broker : 'default')",
            _shown("self.delivery.deadLetterSink.broker")
            + ", the trigger's own broker, another one was expected\"",
            ".delivery.deadLetterSink.broker",
        ),
        _rule(
            "!has(self.join) || !has(self.ordering) || self.ordering != 'key'",
            "\"stands beside 'ordering: key', one of them was expected: a group has no key\"",
            ".join",
        ),
        _rule(
            "!has(self.batch) || !has(self.ordering) || self.ordering != 'key'",
            "\"stands beside 'ordering: key', one of them was expected: a key has one event at once\"",
            ".batch",
        ),
        _rule(
            "!has(self.join) || !has(self.batch)",
            "\"stands beside 'batch', one of them was expected: a group is one call already\"",
            ".join",
        ),
    ],
}
# Rules for a field's value, or for each entry of its list, by model and field.
_VALUE_RULES: dict[tuple[str, str], list[dict[str, str]]] = {
    ("Amounts", "cpu"): [_QUANTITY_IS_POSITIVE],
    ("Amounts", "memory"): [_QUANTITY_IS_POSITIVE],
    ("EnvVar", "name"): [_VARIABLE],
    ("KeyReference", "key"): [_KEY],
    ("Source", "path"): [_FILE],
    ("Source", "requirements"): [_FILE],
    ("Http", "paths"): _PATH,
    ("Http", "hosts"): [_HOST],
    ("ScheduledEvent", "type"): [_NO_CONTROL],
    ("ScheduledEvent", "subject"): [_NO_CONTROL],
    ("ScheduledEvent", "extensions"): [_EXTENSIONS],
}
# What bounds the cost of rules, beside what the models say themselves.
_EXTRAS: dict[tuple[str, str], dict[str, Any]] = {
    ("FunctionSpec", "env"): {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    ("EnvVar", "value"): {"pattern": r"^[^\x00]*$"},
    ("Source", "path"): {"maxLength": _LONGEST_TEXT},
    ("Source", "requirements"): {"maxLength": _LONGEST_TEXT},
    ("ScheduledEvent", "data"): {"x-kubernetes-preserve-unknown-fields": True},
    ("ScheduledEvent", "extensions"): {
        "additionalProperties": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_TEXT_LENGTH,
            "x-kubernetes-validations": [_NO_CONTROL],
        },
        "maxProperties": 32,
    },
}


class _Maker:
    """Turns the definitions of the JSON schema into structural schemas, which can't refer to one another."""

    def __init__(self) -> None:
        self._definitions: dict[str, Any] = schema()["$defs"]

    def object(self, name: str, depth: int = 0) -> dict[str, Any]:
        """The structural schema of the model ``name``; filters in filters end at a depth."""
        definition = self._definitions[name]
        result = {key: value for key, value in definition.items() if key not in _DROPPED | {"properties"}}
        result["properties"] = {
            field: self._field(name, field, value, depth)
            for field, value in definition["properties"].items()
            if not (name == "Filter" and depth >= MAX_FILTER_DEPTH and field in ("all", "any", "not"))
        }
        if depth > 1:  # what is said once is enough
            for value in (result, *result["properties"].values()):
                value.pop("description", None)
        required = [*result.get("required", ()), *_REQUIRED.get(name, ())]
        if required:
            result["required"] = list(dict.fromkeys(required))
        for replaced in _RULED.get(name, ()):
            del result[replaced]
        if name in _OBJECT_RULES:
            result["x-kubernetes-validations"] = _OBJECT_RULES[name]
        elif name == "Filter" and depth < MAX_FILTER_DEPTH:  # deeper, even such a rule costs too much
            del result["maxProperties"]
            result["x-kubernetes-validations"] = [_one_dialect(field) for field in _DIALECTS[1:]]
        return result

    def _field(self, model: str, name: str, field: dict[str, Any], depth: int) -> dict[str, Any]:
        result = self._value(field, depth)
        if model == "Filter" and name in ("exact", "prefix", "suffix"):
            result["additionalProperties"] = {"type": "string", "minLength": 1}
            if depth <= CHECKED_KEYS_DEPTH:
                result["x-kubernetes-validations"] = [_ATTRIBUTES]
        if (model, name) in _VALUE_RULES:
            target = result["items"] if result["type"] == "array" else result
            target["x-kubernetes-validations"] = _VALUE_RULES[model, name]
        if (model, name) in _DEFAULTS:
            result["default"] = _DEFAULTS[model, name]
        return result | _EXTRAS.get((model, name), {})

    def _value(self, field: dict[str, Any], depth: int) -> dict[str, Any]:
        if "$ref" in field:
            name = field["$ref"].rpartition("/")[2]
            inner = self.object(name, depth + (name == "Filter"))
            return inner | ({"description": field["description"]} if "description" in field else {})
        result = {key: value for key, value in field.items() if key not in _DROPPED}
        if "const" in result:
            result["enum"] = [result.pop("const")]
        if "exclusiveMinimum" in result:
            result |= {"minimum": result["exclusiveMinimum"], "exclusiveMinimum": True}
        if isinstance(least := result.get("minimum"), float) and not least.is_integer():
            # A whole number is compared with the whole part of the bound alone.
            result["x-kubernetes-validations"] = [
                _rule(f"self >= {least}", f"'is less than {least}, at least that was expected'")
            ]
        if "items" in result:
            result["items"] = self._value(result["items"], depth)
        if BOUNDS in field:
            least, _, most = field[BOUNDS].partition(" to ")
            result["maxLength"] = _LONGEST_DURATION
            result["x-kubernetes-validations"] = [
                _rule(
                    f"!self.matches('{result['pattern']}') || "
                    f"(duration(self) >= duration('{least}') && duration(self) <= duration('{most}'))",
                    _shown("self") + f', {field[BOUNDS]} was expected"',
                )
            ]
        return result


_CONDITIONS: dict[str, Any] = {
    "type": "array",
    "description": "What holds of it, by type.",
    "maxItems": 16,
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
    "items": {
        "type": "object",
        "required": ["type", "status", "reason", "message", "lastTransitionTime"],
        "properties": {
            "type": {"type": "string", "description": "What it is about."},
            "status": {
                "type": "string",
                "enum": ["True", "False", "Unknown"],
                "description": "Whether it holds.",
            },
            "reason": {"type": "string", "description": "Why, in one word for programs."},
            "message": {"type": "string", "description": "Why, in words for people."},
            "lastTransitionTime": {
                "type": "string",
                "format": "date-time",
                "description": "When its status changed last.",
            },
            "observedGeneration": {
                "type": "integer",
                "format": "int64",
                "description": "The generation of the declaration that it speaks of.",
            },
        },
    },
}
_OBSERVED = {
    "type": "integer",
    "format": "int64",
    "description": "The generation of the declaration that the status speaks of.",
}
_FUNCTION_STATUS = {
    "type": "object",
    "description": "What runs of it; written by the platform.",
    "properties": {
        "observedGeneration": _OBSERVED,
        "conditions": _CONDITIONS,
        "revision": {"type": "string", "description": "The revision that requests go to."},
        "latestRevision": {"type": "string", "description": "The revision that was made last."},
        "instances": {"type": "integer", "format": "int32", "description": "Instances that take requests."},
        "url": {"type": "string", "description": "Where it is called."},
        "selector": {"type": "string", "description": "Labels of its instances' pods."},
    },
}
_TRIGGER_STATUS = {
    "type": "object",
    "description": "How it is; written by the platform.",
    "properties": {"observedGeneration": _OBSERVED, "conditions": _CONDITIONS},
}
_SCHEDULE_STATUS = {
    "type": "object",
    "description": "How it is; written by the platform.",
    "properties": {
        "observedGeneration": _OBSERVED,
        "conditions": _CONDITIONS,
        "lastFiringTime": {
            "type": "string",
            "format": "date-time",
            "description": "For when the newest firing was planned; it may be a minute old.",
        },
        "nextFiringTime": {
            "type": "string",
            "format": "date-time",
            "description": "For when the next firing is planned; none while it rests.",
        },
    },
}


def _column(name: str, path: str, kind: str = "string", description: str = "") -> dict[str, Any]:
    column = {"name": name, "type": kind, "jsonPath": path}
    return column | ({"description": description} if description else {})


_READY = _column("Ready", '.status.conditions[?(@.type=="Ready")].status')
_REASON = _column("Reason", '.status.conditions[?(@.type=="Ready")].reason') | {"priority": 1}
_AGE = _column("Age", ".metadata.creationTimestamp", "date")
_COLUMNS = {
    "Function": [
        _READY,
        _column("Revision", ".status.revision"),
        _column("Instances", ".status.instances", "integer"),
        _column("URL", ".status.url"),
        _AGE,
        _REASON,
    ],
    "Trigger": [
        _READY,
        _column("Broker", ".spec.broker"),
        _column("Function", ".spec.subscriber.function"),
        _AGE,
        _REASON,
    ],
    "Schedule": [
        _READY,
        _column("Cron", ".spec.cron"),
        _column("Zone", ".spec.timeZone"),
        _column("Suspend", ".spec.suspend", "boolean"),
        _column("Broker", ".spec.broker"),
        _column("Last", ".status.lastFiringTime", "date"),
        _AGE,
        _column("Next", ".status.nextFiringTime") | {"priority": 1},
        _REASON,
    ],
}


def definitions() -> dict[str, dict[str, Any]]:
    """The custom resource definitions by the file that each is written to."""
    return {
        "functions.yaml": _definition("Function", "functions", ["fn"], _FUNCTION_STATUS, scales=True),
        "triggers.yaml": _definition("Trigger", "triggers", [], _TRIGGER_STATUS, scales=False),
        "schedules.yaml": _definition("Schedule", "schedules", [], _SCHEDULE_STATUS, scales=False),
    }


def _definition(
    kind: str, plural: str, short: list[str], status: dict[str, Any], *, scales: bool
) -> dict[str, Any]:
    subresources: dict[str, Any] = {"status": {}}
    if scales:
        subresources["scale"] = {
            "specReplicasPath": ".spec.scaling.minScale",
            "statusReplicasPath": ".status.instances",
            "labelSelectorPath": ".status.selector",
        }
    version = {
        "name": _VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _root(kind, status)},
        "subresources": subresources,
        "additionalPrinterColumns": _COLUMNS[kind],
    }
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": plural.removesuffix("s")}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{_GROUP}"},
        "spec": {
            "group": _GROUP,
            "scope": "Namespaced",
            "names": names | ({"shortNames": short} if short else {}) | {"categories": ["torpor"]},
            "versions": [version],
        },
    }


def _root(kind: str, status: dict[str, Any]) -> dict[str, Any]:
    root = _Maker().object(kind)
    metadata = root["properties"]["metadata"]["properties"]["name"]
    # Of metadata a definition may restrict the name alone; the rest has Kubernetes' rules.
    name = {key: value for key, value in metadata.items() if key != "description"}
    for field in ("apiVersion", "kind"):
        root["properties"][field].pop("enum")
    root["properties"]["metadata"] = {"type": "object", "properties": {"name": name}}
    root["properties"]["status"] = status
    root["required"] = ["spec"]
    return root


def files() -> dict[str, bytes]:
    """What is written, by name."""
    return {name: yaml_file([definition], "torpor.spec.crds") for name, definition in definitions().items()}


def yaml_file(objects: Sequence[dict[str, Any]], module: str) -> bytes:
    """``objects`` as a file that ``module`` makes."""
    writer = YAML()
    writer.width = 110
    writer.representer.ignore_aliases = lambda _: True
    stream = io.BytesIO()
    stream.write(f"# Made from the models by `python -m {module}`.\n".encode())
    writer.dump_all(objects, stream)
    return stream.getvalue()


if __name__ == "__main__":
    main(files(), "k8s/crds")
