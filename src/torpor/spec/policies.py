"""The admission policies of a cluster: what its resource definitions can't say.

``python -m torpor.spec.policies [FOLDER]`` writes them, FOLDER being ``k8s/policies`` by default. An API
server reckons what a rule in a definition may cost at most, and refuses one that looks at the keys of every
filter in filters in filters; what a policy costs it counts while it runs. Nor can such a rule see a field
that may hold anything, as the data of a Schedule's event.
"""

from __future__ import annotations

from typing import Any, Final

from torpor.spec.crds import CHECKED_KEYS_DEPTH, EXPECTED_KEY, EXPECTED_PATH, WRONG_KEY, yaml_file
from torpor.spec.models import MAX_FILTER_DEPTH
from torpor.spec.written import main

_API: Final = "admissionregistration.k8s.io/v1"
_INNER = "(has(one.all) ? one.all : []) + (has(one.any) ? one.any : []) + (has(one.not) ? [one.not] : [])"
_WRONG = " + ".join(
    f"(has(one.{dialect}) ? one.{dialect}.filter(key, {WRONG_KEY.format('key')}) : [])"
    for dialect in ("exact", "prefix", "suffix")
)


def _level(depth: int) -> str:
    return f"level{depth}"


def _nested(start: str, expression: str, lists: int) -> str:
    """``expression`` of each ``one`` in lists in lists, the outermost being ``start``."""
    text = expression
    for count in range(1, lists + 1):
        text = f"{_source(start, count, lists)}.map({_each(count)}, {text})"
    return text


def _each(count: int) -> str:
    return "one" if count == 1 else f"list{count - 1}"


def _source(start: str, count: int, lists: int) -> str:
    return start if count == lists else f"list{count}"


def _joined(start: str, lists: int) -> str:
    """The wrong keys of every filter in lists in lists, as one text."""
    text = f"({_WRONG}).map(key, \"'\" + key + \"'\").join(', ')"
    for count in range(1, lists + 1):
        keys = f"{_source(start, count, lists)}.map({_each(count)}, {text})"
        text = f"{keys}.filter(text, text != '').join(', ')"
    return text


def filters() -> list[dict[str, Any]]:
    """The policy for filters in Triggers, and the binding that has it hold everywhere."""
    variables = [
        {
            "name": _level(1),
            "expression": "has(object.spec.filters) ? object.spec.filters : []",
        }
    ]
    for depth in range(2, MAX_FILTER_DEPTH + 1):
        expression = _nested(f"variables.{_level(depth - 1)}", _INNER, depth - 1)
        variables.append({"name": _level(depth), "expression": expression})
    checked = range(CHECKED_KEYS_DEPTH + 1, MAX_FILTER_DEPTH + 1)
    variables += [
        {"name": f"wrong{depth}", "expression": _joined(f"variables.{_level(depth)}", depth)}
        for depth in checked
    ]
    validations = [
        (
            f"variables.wrong{depth} == ''",
            (
                f'"spec.filters: have, at depth {depth}, the keys " + variables.wrong{depth} + '
                f'", {EXPECTED_KEY} was expected, {EXPECTED_PATH}"'
            ),
        )
        for depth in checked
    ]
    return _policy("filters", "triggers", variables, validations)


def schedules() -> list[dict[str, Any]]:
    """The policy for the data of what Schedules publish, and the binding that has it hold everywhere."""
    event = {"name": "event", "expression": "has(object.spec.event) ? object.spec.event : {}"}
    validations = [
        (
            "!(has(variables.event.data) && has(variables.event.dataText))",
            "\"spec.event.dataText: stands beside 'data', one of them was expected\"",
        ),
        (
            (
                "!has(variables.event.dataContentType) "
                "|| has(variables.event.data) || has(variables.event.dataText)"
            ),
            '"spec.event.dataContentType: is given without data, data or dataText was expected beside it"',
        ),
    ]
    return _policy("schedules", "schedules", [event], validations)


def _policy(
    name: str, resource: str, variables: list[dict[str, str]], validations: list[tuple[str, str]]
) -> list[dict[str, Any]]:
    """A policy of ``validations``, each a rule and the message of who breaks it, and its binding."""
    rule = {
        "apiGroups": ["torpor.dev"],
        "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE"],
        "resources": [resource],
    }
    policy = {
        "apiVersion": _API,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": f"{name}.torpor.dev"},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [rule]},
            "variables": variables,
            "validations": [
                {"expression": expression, "messageExpression": message, "reason": "Invalid"}
                for expression, message in validations
            ],
        },
    }
    binding = {
        "apiVersion": _API,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": f"{name}.torpor.dev"},
        "spec": {"policyName": f"{name}.torpor.dev", "validationActions": ["Deny"]},
    }
    return [policy, binding]


def files() -> dict[str, bytes]:
    """What is written, by name."""
    made = {"filters": filters(), "schedules": schedules()}
    return {f"{name}.yaml": yaml_file(objects, "torpor.spec.policies") for name, objects in made.items()}


if __name__ == "__main__":
    main(files(), "k8s/policies")
