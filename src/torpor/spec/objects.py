"""From objects of the Kubernetes API to declarations.

The API server has checked them by the schema already; what that can't say is found here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from torpor.errors import DeclarationError
from torpor.spec.faults import explain, field_name
from torpor.spec.models import Function, Schedule, Trigger
from torpor.spec.values import FROM_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

_Model = TypeVar("_Model", Function, Trigger, Schedule)
_METADATA = ("name", "namespace", "labels")


def function_of(item: Mapping[str, Any]) -> Function:
    """The function that ``item`` declares; raises ``DeclarationError`` whose faults name the fields."""
    return _read(Function, item)


def trigger_of(item: Mapping[str, Any]) -> Trigger:
    """The trigger that ``item`` declares; raises ``DeclarationError`` whose faults name the fields."""
    return _read(Trigger, item)


def schedule_of(item: Mapping[str, Any]) -> Schedule:
    """The schedule that ``item`` declares; raises ``DeclarationError`` whose faults name the fields."""
    return _read(Schedule, item)


def _read(model: type[_Model], item: Mapping[str, Any]) -> _Model:
    given = item.get("metadata", {})
    document = {
        "apiVersion": item.get("apiVersion"),
        "kind": item.get("kind"),
        "metadata": {name: given[name] for name in _METADATA if given.get(name) is not None},
        "spec": item.get("spec", {}),
    }
    try:
        return model.model_validate(document, by_alias=True, by_name=False, context=FROM_FILE)
    except ValidationError as error:
        found = explain(error.errors(include_url=False), model)
        raise DeclarationError([f"{field_name(where)}: {text}" for where, text in found]) from None
