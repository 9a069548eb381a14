"""What is wrong between resources that are right each by itself, or between one and the files it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torpor.spec.faults import did_you_mean, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from torpor.spec.faults import Fault, FieldPath
    from torpor.spec.models import Function, Trigger
    from torpor.spec.origins import Origin


def check_files(function: Function, origin: Origin) -> Iterator[Fault]:
    """Faults of the files that ``function``, whose paths are absolute, names."""
    source = function.spec.code
    if not source.path.is_dir():
        message = f"there is no folder '{printable(source.path)}', one that exists was expected"
        yield origin.fault(("spec", "source", "path"), message)
        return
    if source.requirements is not None and not source.requirements.is_file():
        message = f"there is no file '{printable(source.requirements)}', one that exists was expected"
        yield origin.fault(("spec", "source", "requirements"), message)
    module = source.handler.partition(":")[0]
    # With requirements, the module may be one that they install.
    if source.requirements is None and not _has_module(source.path, module):
        file = source.path / f"{module.replace('.', '/')}.py"
        yield origin.fault(
            ("spec", "source", "handler"), f"is '{source.handler}', a file '{printable(file)}' was expected"
        )


def check_local(function: Function, origin: Origin) -> Iterator[Fault]:
    """Faults of a ``function`` that is to run on this machine, and not on a cluster."""
    if function.spec.image_only:
        message = "is an image, which only a cluster runs; spec.source, its code, was expected beside it"
        yield origin.fault(("spec", "image"), message)
    for index, variable in enumerate(function.spec.env):
        if variable.value_from is not None and not variable.value_from.reference.optional:
            message = "is kept on a cluster, a value was expected, or a reference that is optional"
            yield origin.fault(("spec", "env", index, "valueFrom"), message)


def _has_module(folder: Path, module: str) -> bool:
    path = folder.joinpath(*module.split("."))
    return path.with_name(f"{path.name}.py").is_file() or (path / "__init__.py").is_file()


def check_subscribers(
    triggers: Iterable[Trigger],
    functions: Mapping[str, Function],
    claimed: Collection[str],
    origin_of: Callable[[Trigger], Origin],
) -> Iterator[Fault]:
    """Faults of triggers that name none of ``functions``, and no name that is ``claimed`` by a wrong one."""
    for trigger in triggers:
        for key, where in (
            (trigger.function_key, ("spec", "subscriber", "function")),
            (trigger.sink_function_key, ("spec", "delivery", "deadLetterSink", "function")),
        ):
            if key is None or key in functions or key.partition("/")[2] in claimed:
                continue
            yield origin_of(trigger).fault(where, _unknown("function", key, functions, "a declared function"))


def check_sinks(
    triggers: Collection[Trigger], claimed: Collection[str], origin_of: Callable[[Trigger], Origin]
) -> Iterator[Fault]:
    """Faults of triggers that put dead letters into a broker that nobody reads.

    ``claimed`` are the names of wrong declarations: one of them may be what reads it.
    """
    read = {trigger.broker_key for trigger in triggers}
    for trigger in triggers:
        key = trigger.sink_broker_key
        if key is None or claimed or key in read:
            continue
        message = _unknown("broker", key, read - {trigger.broker_key}, "another one that a trigger reads")
        yield origin_of(trigger).fault(("spec", "delivery", "deadLetterSink", "broker"), message)


def _unknown(kind: str, key: str, known: Iterable[str], expected: str) -> str:
    namespace, name = key.split("/")
    near = did_you_mean(name, [one.partition("/")[2] for one in known if one.startswith(f"{namespace}/")])
    text = f"did you mean '{near}'?" if near else f"the name of {expected} was expected"
    return f"there is no {kind} '{name}' in namespace '{namespace}', {text}"


def check_routes(functions: Iterable[Function], origin_of: Callable[[Function], Origin]) -> Iterator[Fault]:
    """Faults of functions whose hosts and paths lead to another one already."""
    owners: dict[tuple[str, str], Function] = {}
    for function in functions:
        reported: set[FieldPath] = set()
        for (host, path), where in routes_of(function):
            owner = owners.setdefault((host, path), function)
            if owner is function or where in reported:
                continue
            reported.add(where)
            place = f"function {owner.key!r}, declared at {origin_of(owner)}"
            message = f"{path!r} on {host or 'any host'} leads to {place}; another was expected"
            yield origin_of(function).fault(where, message)


def routes_of(function: Function) -> Iterator[tuple[tuple[str, str], FieldPath]]:
    """Each host (empty: any) and path prefix that leads to ``function``, and the field that says so."""
    http = function.spec.http
    for host_index, host in enumerate(http.hosts or ("",)):
        if host and not http.paths:
            yield (host, "/"), ("spec", "http", "hosts", host_index)
        for index, path in enumerate(http.paths):
            yield (host, path), ("spec", "http", "paths", index)
