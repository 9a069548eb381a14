"""Requests made from the API's own OpenAPI document, right and wrong: each answer is as it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import schemathesis
from hypothesis import HealthCheck, settings

from torpor.api.app import ApiOptions, create
from torpor.binding import WireEvent
from torpor.spec.history import Explanation
from torpor.spec.letters import DeadLetter
from torpor.spec.models import Filter
from torpor.spec.status import LogLine, TriggerStatus
from torpor.testing.backend import EPOCH, FakeBackend, function_status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
from typing import Any

LETTER = "0" * 28


class _Ending(FakeBackend):
    """One whose tails end, so that a request for one does."""

    async def tail(self, broker: str) -> AsyncIterator[WireEvent]:
        return self._one()

    async def _one(self) -> AsyncIterator[WireEvent]:
        yield WireEvent({"specversion": "1.0", "id": "1", "source": "/test", "type": "image.tile"}, b"[1]")

    async def logs(self, key: str, *, tail: int, follow: bool) -> AsyncIterator[LogLine]:
        async for line in super().logs(key, tail=tail, follow=False):
            yield line


def _filled() -> FakeBackend:
    backend = _Ending()
    backend.add(function_status("default"), function_status("resize", "images"))
    backend.trigger_list = [
        TriggerStatus(
            name="tiles",
            namespace="images",
            broker="default",
            function="resize",
            filters=(Filter(not_=Filter(exact={"type": "image.tile"})),),
        )
    ]
    backend.write("default/default", "a line")
    letter = DeadLetter(
        id=LETTER,
        broker="default/default",
        trigger="images/tiles",
        function="images/resize",
        at=EPOCH,
        reason="the function answered 500, at attempt 11, the last",
        attempts=11,
        code=500,
        event_type="image.tile",
        event_source="/test",
        event_id="1",
        data_bytes=3,
        event={"specversion": "1.0", "id": "1", "source": "/test", "type": "image.tile", "data": [1]},
    )
    backend.letters = {LETTER: letter, "default": letter}
    backend.explanations = [
        Explanation(broker="default/default", id="1", source="/test", type="image.tile", kept=True)
    ]
    backend.blobs["default"] = (b"bytes", "text/plain")
    return backend


schema = schemathesis.openapi.from_asgi(
    "/api/v1/openapi.json", create(_filled(), ApiOptions(allowed_hosts={"*"}))
)
fuzzed = settings(
    max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@schema.parametrize()
@fuzzed
def test_every_answer_is_what_the_document_says(case: schemathesis.Case[Any]) -> None:
    case.call_and_validate()


@schema.include(path_regex="{name}").parametrize()
@fuzzed
def test_so_it_is_for_what_there_is(case: schemathesis.Case[Any]) -> None:
    case.path_parameters = dict.fromkeys(case.path_parameters, "default")
    case.call_and_validate()
