"""What ``torpor deploy`` sends to a cluster: what files declare, with an image for each function. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from torpor.spec.faults import did_you_mean
from torpor.spec.values import ImageName

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torpor.providers.kubernetes.resources import Object
    from torpor.spec.faults import Fault
    from torpor.spec.load import Declared
    from torpor.spec.models import Function, Resource, Schedule, Trigger

_IMAGE: TypeAdapter[str] = TypeAdapter(ImageName)
_NEEDS_IMAGE = (
    "is missing, an image for the cluster was expected: give it by --image {name}=REFERENCE, or by --images"
    " with what 'torpor build -o json' prints"
)


def check_image(reference: str) -> str | None:
    """What is wrong with ``reference`` as an image's name, if anything is."""
    try:
        _IMAGE.validate_python(reference)
    except ValidationError as error:
        return str(error.errors(include_url=False)[0]["msg"])
    return None


def given(texts: Iterable[str]) -> dict[str, str]:
    """The images that ``NAME=REFERENCE`` texts name. Raises :class:`ValueError` that says what is wrong."""
    images: dict[str, str] = {}
    for text in texts:
        name, equals, reference = text.partition("=")
        if not name or not equals:
            raise ValueError(f"{text!r} is no image of a function, NAME=REFERENCE was expected")
        if name in images:
            raise ValueError(f"the image of {name!r} is given twice")
        fault = check_image(reference)
        if fault is not None:
            raise ValueError(f"the image of {name!r} {fault}")
        images[name] = reference
    return images


def built(document: object) -> dict[str, str]:
    """The images, by function's key, that ``torpor build -o json`` says it made.

    Raises :class:`ValueError` for anything else.
    """
    rows = document if isinstance(document, list) else [None]
    images: dict[str, str] = {}
    for row in rows:
        function, image = (row.get("function"), row.get("image")) if isinstance(row, dict) else (None, None)
        if not isinstance(function, str) or not isinstance(image, str) or check_image(image) is not None:
            raise ValueError("it is not what 'torpor build -o json' prints")
        images[function] = image
    return images


def faults(
    declared: Declared, namespace: str | None, images: Mapping[str, str], were_built: Mapping[str, str]
) -> list[Fault]:
    """What keeps ``declared`` from a cluster: functions without an image, and other namespaces than the one
    that was asked for.
    """
    found = []
    resources: list[Resource] = [
        *declared.functions.values(),
        *declared.triggers.values(),
        *declared.schedules.values(),
    ]
    for one in resources:
        named = "namespace" in one.metadata.model_fields_set
        if namespace is not None and named and one.metadata.namespace != namespace:
            message = f"is '{one.metadata.namespace}', '{namespace}' was expected, or no namespace"
            found.append(declared.origin(one).fault(("metadata", "namespace"), message))
    for function in declared.functions.values():
        if image(function, images, were_built) is None:
            message = _NEEDS_IMAGE.format(name=function.metadata.name)
            found.append(declared.origin(function).fault(("spec", "image"), message))
    return found


def unknown(names: Iterable[str], declared: Declared) -> str | None:
    """That one of ``names`` is no function's, if so."""
    known = [name for one in declared.functions.values() for name in _names(one)]
    for name in names:
        if name not in known:
            near = did_you_mean(name, [one.metadata.name for one in declared.functions.values()])
            expected = f"did you mean '{near}'?" if near else "the name of a declared function was expected"
            return f"there is no function '{name}' to give an image to, {expected}"
    return None


def image(function: Function, images: Mapping[str, str], were_built: Mapping[str, str]) -> str | None:
    """The image of ``function``: the one given by name, else the one that was built, else its own."""
    for name in _names(function):
        if name in images:
            return images[name]
    return were_built.get(function.key) or function.spec.image


def _names(function: Function) -> tuple[str, str]:
    metadata = function.metadata
    return f"{metadata.name}.{metadata.namespace}", metadata.name


def function_object(function: Function, reference: str, namespace: str | None) -> Object:
    """The object that declares ``function`` to a cluster: what was written down, and nothing else.

    Its code stays where it is: a cluster runs the image of it.
    """
    spec = function.spec.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"source"})
    return _object(function, {**spec, "image": reference}, namespace)


def events_object(one: Trigger | Schedule, namespace: str | None) -> Object:
    """The object that declares a trigger or a schedule to a cluster."""
    return _object(one, one.spec.model_dump(mode="json", by_alias=True, exclude_unset=True), namespace)


def _object(one: Resource, spec: Object, namespace: str | None) -> Object:
    metadata: dict[str, Any] = {"name": one.metadata.name, "namespace": namespace or one.metadata.namespace}
    if one.metadata.labels:
        metadata["labels"] = one.metadata.labels
    return {"apiVersion": one.api_version, "kind": one.kind, "metadata": metadata, "spec": spec}


def differs(before: Object, after: Object) -> bool:
    """Whether an object declares other things than it did."""
    return _essence(before) != _essence(after)


def _essence(item: Object) -> tuple[object, ...]:
    metadata = item["metadata"]
    return item.get("spec"), metadata.get("labels") or {}, metadata.get("annotations") or {}
