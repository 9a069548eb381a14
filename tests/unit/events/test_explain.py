"""Why an event did, or did not, arrive: asked after all that can happen to one, on the log in memory."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from tests.unit.events.world import BROKEN, BROKER, World, answer, event, part, trigger, world
from torpor.binding import encode_structured
from torpor.events import names
from torpor.events.explain import Explainer
from torpor.events.ingress import Ingress
from torpor.events.letters import DeadLetters
from torpor.spec.history import Question
from torpor.spec.letters import LetterSelection
from torpor.spec.models import Delivery, Join
from torpor.spec.view import MAX_ATTRIBUTE_BYTES
from torpor.transport import Response

if TYPE_CHECKING:
    from torpor.binding import WireEvent
    from torpor.spec.history import Answer, Explanation

ONCE = Delivery(retry=0)


async def send(it: World, *events: WireEvent) -> None:
    """As a producer does."""
    ingress = Ingress(it.dispatcher.intake, it.clock, it.dispatcher.stats, recorder=it.dispatcher.recorder)
    ingress.set_brokers([BROKER])
    scope = {
        "type": "http",
        "method": "POST",
        "path": f"/events/{BROKER}",
        "headers": [(b"content-type", b"application/cloudevents+json")],
    }
    for each in events:
        answers: list[dict[str, Any]] = []

        async def receive(body: bytes = encode_structured(each)) -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def deliver(message: Any, answers: list[dict[str, Any]] = answers) -> None:
            answers.append(message)

        await ingress(scope, receive, deliver)
        assert answers[0]["status"] == 202
    await it.settle()


async def ask(it: World, event_id: str, **more: str) -> Answer:
    explainer = Explainer(it.log, it.clock, it.dispatcher.routes)
    return await explainer.explain(Question(id=event_id, **more))


async def explain(it: World, event_id: str, **more: str) -> Explanation:
    [one] = (await ask(it, event_id, **more)).items
    return one


def what(one: Explanation) -> list[tuple[str, str]]:
    return [(step.what, step.text) for step in one.steps]


def test_each_attempt_names_the_instance_that_answered() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "a"))
            replies: list[Response | Exception] = [
                answer(503, torpor_instance="f-1"),
                BROKEN,
                answer(torpor_instance="f-2"),
            ]
            it.functions.behave = lambda _, attempt: replies[attempt - 1]
            await send(it, event("1", "a"))
            await it.advance(10.0)
            steps = (await explain(it, "1")).steps
            assert [step.instance for step in steps] == [None, "f-1", None, "f-2"]

    asyncio.run(run())


def test_an_event_can_be_asked_for_by_the_longest_id_that_is_taken() -> None:
    """Attributes are 16,384 bytes at most, of which names and the other values take 29."""
    id_ = "é" * 8_177  # of two bytes each

    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "a", delivery=ONCE))
            it.functions.behave = lambda *_: answer(400)
            longest = event(id_, "a")
            has = len("".join([*longest.attributes, *longest.attributes.values()]).encode())
            assert MAX_ATTRIBUTE_BYTES - 2 < has <= MAX_ATTRIBUTE_BYTES
            await send(it, longest)
            assert (await explain(it, id_)).id == id_
            letters = DeadLetters(
                it.log, it.dispatcher.intake, it.dispatcher.stats, it.dispatcher.recorder, it.dispatcher.route
            )
            [letter] = [each async for each in await letters.select(LetterSelection(event_ids=(id_,)))]
            assert letter.event_id == id_

    asyncio.run(run())


def test_an_event_is_told_from_its_acceptance_to_its_replies() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "a"), trigger("u", "b", "c"))
            replies = [event("1.x/0", "b"), event("1.x/1", "z")]
            it.functions.behave = lambda events, attempt: (
                answer(503) if attempt == 1 else answer(events=replies if events[0].id == "1" else [])
            )
            await send(it, event("1", "a"), event("1", "a"))
            await it.advance(5.0)
            await it.crash()  # and after a restart
            one = await explain(it, "1")
            assert (one.broker, one.source, one.type, one.kept) == (BROKER, "/s", "a", True)
            assert what(one) == [
                ("accepted", "sent by a producer"),
                ("accepted", "sent by a producer, once more: it is kept once"),
                ("delivery", "attempt 1 retried, again after 1 s: the function answered 503"),
                ("delivery", "attempt 2 delivered, with 2 replies"),
            ]
            assert [(step.attempt, step.status, step.delay_seconds) for step in one.steps[-2:]] == [
                (1, 503, 1.0),
                (2, 200, None),
            ]
            t, u = one.triggers
            assert (t.trigger, t.matches, t.state) == (
                "default/t",
                True,
                "attempt 2 delivered, with 2 replies",
            )
            assert (u.matches, u.attribute, u.state) == (False, "type", "passed by")
            assert "type is 'a'" in u.reason
            assert [reply.id for reply in one.replies] == ["1.x/0", "1.x/1"]
            assert one.replies_total == 2
            reply = await explain(it, "1.x/1")
            assert what(reply) == [("accepted", "written as a reply at trigger default/t to event '1'")]
            assert [each.matches for each in reply.triggers] == [False, False]

    asyncio.run(run())


def test_a_dead_letter_is_told_until_it_is_replayed() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "a", delivery=ONCE))
            it.functions.behave = lambda *_: answer(400)
            await send(it, event("1", "a"))
            one = await explain(it, "1")
            assert [step.what for step in one.steps] == ["accepted", "delivery", "dead letter"]
            assert one.triggers[0].state == (
                "became a dead letter: the function answered 400, which is final"
            )
            [letter] = one.dead_letters
            it.functions.behave = lambda *_: answer()
            await it.advance(1.0)
            letters = DeadLetters(
                it.log, it.dispatcher.intake, it.dispatcher.stats, it.dispatcher.recorder, it.dispatcher.route
            )
            it.functions.gate = asyncio.Event()
            assert [each.outcome for each in await letters.replay([letter])] == ["replayed"]
            one = await explain(it, "1")
            assert one.triggers[0].state == "waits: it was replayed, and nothing was attempted since"
            it.functions.gate.set()
            await it.settle()
            one = await explain(it, "1")
            assert one.dead_letters == ()
            assert [text for _, text in what(one)][-2:] == [
                "written as a replay for trigger default/t alone",
                "attempt 1 delivered",
            ]

    asyncio.run(run())


def test_a_dead_letter_that_was_dropped_is_told() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "a", delivery=ONCE))
            it.functions.behave = lambda *_: answer(400)
            await send(it, event("1", "a"))
            [letter] = (await explain(it, "1")).dead_letters
            letters = DeadLetters(
                it.log, it.dispatcher.intake, it.dispatcher.stats, it.dispatcher.recorder, it.dispatcher.route
            )
            await letters.drop([letter], dry_run=True)
            assert (await explain(it, "1")).dead_letters == (letter,)
            await letters.drop([letter])
            one = await explain(it, "1")
            assert one.dead_letters == ()
            assert what(one)[-1] == ("dead letter", "its dead letter was dropped for good")
            assert one.triggers[0].state == "its dead letter was dropped for good"

    asyncio.run(run())


def test_what_the_function_said_comes_last() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "a", delivery=Delivery(backoff_delay_seconds=0.3)))
            body = b'{"detail": "It raised an error; its log has the rest."}'
            problem = Response(500, [(b"content-type", b"application/problem+json")], body)
            it.functions.behave = lambda *_: problem
            await send(it, event("1", "a"))
            [_, (_, text)] = what(await explain(it, "1"))
            assert re.fullmatch(
                r"attempt 1 retried, again after 0\.6\d{0,2} s: "
                r"the function answered 500: It raised an error; its log has the rest\.",
                text,
            )

    asyncio.run(run())


def test_a_group_that_waits_says_which_parts_are_missing() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("j", "part", join=Join(timeout_seconds=60.0)))
            await send(it, part("g", 0, 4), part("g", 2, 4))
            one = await explain(it, "g/0")
            [group] = one.groups
            assert (group.trigger, group.group, group.present, group.size) == ("default/j", "g", 2, 4)
            assert group.missing == (1, 3)
            assert group.state == "waits for the others"
            assert one.triggers[0].state == "waits in its group (part 0 of 4 of group 'g' was kept)"
            await it.advance(61.0)
            one = await explain(it, "g/0")
            assert one.groups[0].state == "ended expired: 2 of 4 parts came in time"
            assert len(one.dead_letters) == 1
            assert one.steps[-1].text.startswith("became a dead letter of group 'g': the group was not whole")

    asyncio.run(run())


def test_a_group_of_one_is_told_to_be_that() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("j", "part", join=Join(timeout_seconds=60.0)))
            await send(it, part("g", 0, 1))
            assert (await explain(it, "g/0")).groups[0].state == "ended whole: its only part came"

    asyncio.run(run())


def test_what_becomes_of_a_group_is_told_of_each_part() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("j", "part", join=Join(timeout_seconds=60.0)))
            it.functions.behave = lambda *_: answer(events=[event("g.x/0", "joined")])
            await send(it, *(part("g", index, 3) for index in range(3)))
            for index in range(3):
                one = await explain(it, f"g/{index}")
                assert one.groups[0].state == "ended whole: all 3 parts came"
                assert one.steps[-1].text == "attempt 1 of group 'g' delivered, with 1 reply"
                assert [reply.id for reply in one.replies] == ["g.x/0"]
            joined = await explain(it, "g.x/0")
            assert what(joined) == [("accepted", "written as a reply at trigger default/j to group 'g'")]

    asyncio.run(run())


def test_events_of_one_id_are_told_apart_by_source() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger())
            await send(it, event("1"), event("1").replace(source="/other"), event("2"))
            assert sorted(one.source for one in (await ask(it, "1")).items) == ["/other", "/s"]
            one = await explain(it, "1", source="/other")
            assert one.source == "/other"
            assert [step.what for step in one.steps] == ["accepted", "delivery"]

    asyncio.run(run())


def test_of_a_known_source_what_is_old_is_found_too() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", delivery=Delivery(retry=1, backoff_delay_seconds=3600.0)))
            it.functions.behave = lambda *_: answer(503)
            await send(it, event("1"))
            it.functions.behave = lambda *_: answer()
            await it.advance(7200.0)
            for _ in range(3):
                one = await explain(it, "1", source="/s")
                assert [step.what for step in one.steps] == ["accepted", "delivery", "delivery"]
                await it.advance(86_400.0)

    asyncio.run(run())


def test_what_the_broker_has_forgotten_is_explained_without_filters() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "a"))
            await send(it, event("1", "a"))
            await it.log.purge(names.broker_stream(BROKER), ">")
            one = await explain(it, "1")
            assert (one.kept, one.type) == (False, "a")
            assert one.triggers[0].matches is None
            assert one.triggers[0].reason == "the broker does not have the event any more"
            assert one.triggers[0].state == "attempt 1 delivered"

    asyncio.run(run())


def test_what_waits_and_what_is_not_known() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare()
            nothing = await ask(it, "1")
            assert (nothing.items, nothing.since, nothing.looked_at) == ((), None, (BROKER,))
            assert (await ask(it, "1", broker="default/other")).looked_at == ()
            await send(it, event("1"))
            await it.declare(trigger())  # it gets what comes from now on
            assert (await explain(it, "1")).triggers[0].state.startswith("nothing was attempted: it waits")
            nothing = await ask(it, "2")
            assert nothing.items == ()
            assert nothing.since is not None
            assert nothing.since.timestamp() == it.clock.now()

    asyncio.run(run())
