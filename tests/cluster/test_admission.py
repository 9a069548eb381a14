"""What ``torpor validate`` finds in a declaration, a real API server refuses, and names the same field."""

from __future__ import annotations

import asyncio
import copy
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.settings import ROOT, ClusterError
from tests.declarations import (
    CRON_FAULTS,
    DOCUMENTS,
    FUNCTION,
    FUNCTION_FAULTS,
    ODD,
    RIGHT_FUNCTIONS,
    RIGHT_SCHEDULES,
    RIGHT_TRIGGERS,
    SCHEDULE,
    SCHEDULE_FAULTS,
    SCHEDULE_WITHOUT_CRON,
    TRIGGER,
    TRIGGER_FAULTS,
    WHOLE_FUNCTION,
    WHOLE_SCHEDULE,
    WHOLE_TRIGGER,
    Wrong,
)
from torpor.errors import ClusterError as Refusal
from torpor.errors import DeclarationError
from torpor.providers.kubernetes.connection import connect
from torpor.providers.kubernetes.kube import Call, closing
from torpor.providers.kubernetes.resources import FUNCTIONS, SCHEDULES, TRIGGERS
from torpor.spec.documents import Document, parse
from torpor.spec.objects import function_of, schedule_of, trigger_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.clusters import Cluster
    from torpor.providers.kubernetes.kube import Kube
    from torpor.providers.kubernetes.resources import Object, Resource

AT_ONCE = 8
RESOURCES = {"Function": FUNCTIONS, "Trigger": TRIGGERS, "Schedule": SCHEDULES}


def one(head: str, line: str) -> Document:
    [document], _ = parse(f"{head}  {line}\n".encode())
    return for_cluster(document)


def for_cluster(document: Document) -> Document:
    """``document`` as a cluster has it: functions have an image."""
    value = document.value
    value["metadata"].setdefault("namespace", "default")
    if value["kind"] == "Function" and isinstance(value.get("spec"), dict):
        value["spec"].setdefault("image", "registry.example/f:1")
    return document


async def create(kube: Kube, resource: Resource, item: Object, *, strict: bool = True) -> None:
    """Have the server judge a new object, as a client that posts it does."""
    query = {"dryRun": "All"} | ({"fieldValidation": "Strict"} if strict else {})
    await kube._send(Call("POST", resource.path(item["metadata"]["namespace"]), query, item))


async def apply(kube: Kube, resource: Resource, item: Object) -> None:
    await kube.apply(resource, item, dry_run=True)


async def refusal(verdict: Any) -> str | None:
    try:
        await verdict
    except Refusal as error:
        return str(error)
    return None


async def judged(kubeconfig: Path, documents: list[Document]) -> list[tuple[str | None, str | None]]:
    """What the server says against each document, when it is created and when it is applied."""
    gate = asyncio.Semaphore(AT_ONCE)
    async with closing(await connect(kubeconfig=str(kubeconfig))) as kube:

        async def judge(document: Document) -> tuple[str | None, str | None]:
            resource = RESOURCES[document.value["kind"]]
            async with gate:
                created = await refusal(create(kube, resource, document.value))
                return created, await refusal(apply(kube, resource, document.value))

        return await asyncio.gather(*(judge(document) for document in documents))


def test_every_fault_is_refused_and_its_field_named(definitions: Cluster) -> None:
    tables = (
        (FUNCTION, FUNCTION_FAULTS),
        (TRIGGER, TRIGGER_FAULTS),
        (SCHEDULE, SCHEDULE_FAULTS),
        (SCHEDULE_WITHOUT_CRON, CRON_FAULTS),
    )
    cases = [(wrong, head) for head, table in tables for wrong in table if wrong.server is not None]
    documents = [one(head, wrong.line) for wrong, head in cases]
    answers = asyncio.run(judged(definitions.kubeconfig, documents))
    problems = [
        text
        for (wrong, _), document, answer in zip(cases, documents, answers, strict=True)
        for text in complaints(wrong, document, *answer)
    ]
    assert problems == []


def complaints(wrong: Wrong, document: Document, created: str | None, applied: str | None) -> Iterator[str]:
    # Of a field without a value, an API server that creates an object thinks that it was left out.
    if not document.empty and created is None:
        yield f"{wrong.line[:80]} can be created"
    if applied is None:
        yield f"{wrong.line[:80]} can be applied"
    said = applied if document.empty else created
    if said is not None and (wrong.server or wrong.field) not in said:
        yield f"{wrong.field} is not named: {said[:300]}"


def test_what_is_right_is_taken(definitions: Cluster) -> None:
    texts = [FUNCTION.partition("spec:")[0] + f"spec: {spec}\n" for spec in RIGHT_FUNCTIONS]
    texts += [TRIGGER.partition("spec:")[0] + f"spec: {spec}\n" for spec in RIGHT_TRIGGERS]
    texts += [SCHEDULE.partition("spec:")[0] + f"spec: {spec}\n" for spec in RIGHT_SCHEDULES]
    texts += [path.read_text("utf-8") for path in sorted((ROOT / "functions").rglob("function.yaml"))]
    documents = [for_cluster(document) for text in texts for document in parse(text.encode())[0]]
    assert len(documents) > len(RIGHT_FUNCTIONS) + len(RIGHT_TRIGGERS) + 3
    answers = asyncio.run(judged(definitions.kubeconfig, documents))
    assert [
        (document.value, answer) for document, answer in zip(documents, answers, strict=True) if any(answer)
    ] == []


def test_source_alone_is_refused_with_words_that_help(definitions: Cluster) -> None:
    text = f"{FUNCTION}  source: {{path: .}}\n"
    with pytest.raises(ClusterError, match=r"spec.image: .* a cluster runs no source, but the image"):
        definitions.kubectl("create", "--dry-run=server", "--filename=-", text=text)


@pytest.mark.parametrize(("text", "_", "said"), DOCUMENTS)
def test_wrong_documents_are_refused(definitions: Cluster, text: str, _: list[str], said: str) -> None:
    with pytest.raises(ClusterError, match=re.escape(said)):
        definitions.kubectl("apply", "--server-side", "--dry-run=server", "--filename=-", text=text)


def test_what_a_plain_client_misspells_is_told_and_dropped(definitions: Cluster) -> None:
    """Whether unknown fields are refused is each client's choice: only what is applied never has any."""

    async def main() -> None:
        document = one(FUNCTION, "containerConcurency: 3")
        async with closing(await connect(kubeconfig=str(definitions.kubeconfig))) as kube:
            assert await refusal(create(kube, FUNCTIONS, document.value, strict=False)) is None
            assert "unknown field" in str(await refusal(create(kube, FUNCTIONS, document.value)))
            assert "not declared" in str(await refusal(apply(kube, FUNCTIONS, document.value)))

    asyncio.run(main())


# --- odd values in every field -----------------------------------------------------------------------------


def changed(document: Object) -> Iterator[Object]:
    """``document`` with each odd value in the place of each value below ``spec``."""
    for path in paths(document["spec"], ("spec",)):
        for value in ODD:
            if path[-1] == "sql" and isinstance(value, str):
                continue  # a server can't read expressions: the controller says what is wrong with one
            copied = copy.deepcopy(document)
            inner: Any = copied
            for segment in path[:-1]:
                inner = inner[segment]
            inner[path[-1]] = value
            yield copied


def paths(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for segment, below in inner:
        yield (*path, segment)
        yield from paths(below, (*path, segment))


def faults_of(item: Object) -> list[str]:
    """What the platform finds in ``item``, as it reads it from a cluster."""
    try:
        {"Function": function_of, "Trigger": trigger_of, "Schedule": schedule_of}[item["kind"]](item)
    except DeclarationError as error:
        return error.faults
    return []


def only_looked_up(faults: list[str]) -> bool:
    """Whether all of ``faults`` are of values that an API server knows the form of alone."""
    return bool(faults) and all(fault.startswith(("spec.cron: ", "spec.timeZone: ")) for fault in faults)


def test_the_server_and_the_models_agree_on_odd_values_in_every_field(definitions: Cluster) -> None:
    items = [*changed(WHOLE_FUNCTION), *changed(WHOLE_TRIGGER), *changed(WHOLE_SCHEDULE)]

    async def main() -> list[str | None]:
        gate = asyncio.Semaphore(AT_ONCE)
        async with closing(await connect(kubeconfig=str(definitions.kubeconfig))) as kube:

            async def judge(item: Object) -> str | None:
                async with gate:
                    return await refusal(create(kube, RESOURCES[item["kind"]], item))

            return await asyncio.gather(*(judge(item) for item in items))

    answers = asyncio.run(main())
    differing = [
        (faults_of(item), answer)
        for item, answer in zip(items, answers, strict=True)
        if bool(faults_of(item)) != (answer is not None) and not only_looked_up(faults_of(item))
    ]
    print(f"\n{len(items)} objects, {sum(answer is not None for answer in answers)} refused")
    assert differing == []
