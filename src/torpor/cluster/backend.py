"""A platform in a cluster as ``/api/v1`` shows it: it only reads, and decides nothing.

Functions, triggers and pods come from mirrors, so that asking costs the API server nothing; what only the
platform's own pods know is asked of them, and left out where they don't answer. Keeps
:class:`torpor.api.backend.Backend`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING

from torpor.cluster import views
from torpor.cluster.brokers import EventsPods
from torpor.cluster.declarations import broker_of
from torpor.cluster.logs import PodLogs
from torpor.controller import names
from torpor.controller.loads import GatewayLoads, agent
from torpor.controller.status import is_ready
from torpor.controller.world import function_key
from torpor.errors import ClusterError, TransportError
from torpor.events.views import broker_statuses
from torpor.providers.kubernetes import resources
from torpor.providers.kubernetes.mirror import Mirror
from torpor.scaling import told
from torpor.spec.status import PlatformStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from torpor.binding import WireEvent
    from torpor.blobs import Blobs, OpenBlob
    from torpor.clock import Clock
    from torpor.endpoint import Endpoint
    from torpor.providers.kubernetes.kube import Kube
    from torpor.providers.kubernetes.resources import Object
    from torpor.scaling.load import Load
    from torpor.scaling.loop import ScalingState
    from torpor.spec.calls import CallPage, CallSelection, CallStatus
    from torpor.spec.history import Answer, Question
    from torpor.spec.letters import DeadLetter, LetterAction, LetterOutcome, LetterSelection
    from torpor.spec.replays import Replay, ReplayPage
    from torpor.spec.status import BrokerStatus, FunctionStatus, LogLine, ScheduleStatus, TriggerStatus
    from torpor.transport import Client

_LOG = logging.getLogger("torpor.api")
_ASK_SECONDS = 2.0
_MEMORY = re.compile(rb"^process_resident_memory_bytes (\S+)", re.MULTILINE)


class ClusterBackend:
    """The platform in ``namespace``. ``log_kube`` has connections of its own, which readers of logs may use
    up; ``url`` is where callers reach the gateway.
    """

    def __init__(
        self,
        kube: Kube,
        log_kube: Kube,
        client: Client,
        clock: Clock,
        blobs: Blobs,
        *,
        namespace: str,
        url: str,
    ) -> None:
        self._client = client
        self._clock = clock
        self._blobs = blobs
        self._url = url.rstrip("/")
        self._started_at = clock.now()
        self._functions = Mirror(kube, resources.FUNCTIONS, clock, lambda _: None)
        self._triggers = Mirror(kube, resources.TRIGGERS, clock, lambda _: None)
        self._schedules = Mirror(kube, resources.SCHEDULES, clock, lambda _: None)
        self._pods = Mirror(
            kube, resources.PODS, clock, self._pod_changed, labels=names.SELECTOR, group=function_key
        )
        part_of = f"{names.PART_OF}=torpor,{names.COMPONENT}"
        self._parts = Mirror(kube, resources.PODS, clock, lambda _: None, namespace=namespace, labels=part_of)
        self._loads = GatewayLoads(kube, client, clock, namespace)
        self._last_loads: Mapping[str, Load] = {}
        self._events = EventsPods(clock, lambda: self._agents("events"))
        self._logs = PodLogs(log_kube, clock, self._pods.of)

    # --- life -------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether all that there is has been seen once."""
        return all(mirror.synced.is_set() for mirror in self._mirrors)

    async def run(self) -> None:
        """Keep up with the cluster, for as long as it is let."""
        try:
            async with asyncio.TaskGroup() as group:
                for mirror in self._mirrors:
                    group.create_task(mirror.run())
        finally:
            await self._events.close()

    @property
    def _mirrors(self) -> tuple[Mirror, ...]:
        declared = (self._functions, self._triggers, self._schedules)
        return (*declared, self._pods, self._parts, self._loads.mirror)

    def _pod_changed(self, pod: Object) -> None:
        self._logs.changed(function_key(pod))

    # --- what the API shows -----------------------------------------------------------------------------

    async def functions(self) -> Sequence[FunctionStatus]:
        """Every declared function."""
        return await self._shown(list(self._functions.items))

    async def function(self, key: str) -> FunctionStatus | None:
        """One function."""
        found = await self._shown([key]) if key in self._functions.items else ()
        return found[0] if found else None

    async def triggers(self) -> Sequence[TriggerStatus]:
        """Every declared trigger."""
        state = views.events_sum(await self._events.states())
        return [
            views.trigger_status(item, state.counts(name), state.problem(name))
            for name, item in list(self._triggers.items.items())
        ]

    async def schedules(self) -> Sequence[ScheduleStatus]:
        """Every declared schedule."""
        state = views.events_sum(await self._events.states())
        return [
            views.schedule_status(item, state.schedules.get(name))
            for name, item in list(self._schedules.items.items())
        ]

    async def brokers(self) -> Sequence[BrokerStatus]:
        """Every broker: those that triggers read or schedules fill, and the one that there always is."""
        state = views.events_sum(await self._events.states())
        brokers = [(name, broker_of(item)) for name, item in self._triggers.items.items()]
        filled = [broker_of(item) for item in self._schedules.items.values()]
        return broker_statuses(brokers, state, self._url, filled)

    async def status(self) -> PlatformStatus:
        """The platform itself: every pod of it."""
        pods = list(self._parts.items.values())
        declared = (self._functions, self._triggers, self._schedules)
        objects = [item for mirror in declared for item in mirror.items.values()]
        return PlatformStatus(
            version=metadata.version("torpor"),
            started_at=datetime.fromtimestamp(self._started_at, UTC),
            gateway_url=self._url,
            parts=views.parts(pods, await self._memory()),
            functions=len(self._functions.items),
            triggers=len(self._triggers.items),
            schedules=len(self._schedules.items),
            faults=views.faults(objects),
        )

    def logs(self, key: str, *, tail: int, follow: bool) -> AsyncIterator[LogLine]:
        """The last lines of a function's instances."""
        return self._logs.read(key, tail=tail, follow=follow)

    async def tail(self, broker: str) -> AsyncIterator[WireEvent]:
        """Events of a broker from now on."""
        return await self._events.tail(broker)

    async def dead_letters(self, selection: LetterSelection) -> AsyncIterator[DeadLetter]:
        """The dead letters of a selection."""
        return await self._events.ask(lambda pod: pod.dead_letters(selection))

    async def dead_letter(self, letter_id: str) -> DeadLetter | None:
        """One dead letter."""
        return await self._events.ask(lambda pod: pod.dead_letter(letter_id))

    async def replay(self, action: LetterAction) -> Sequence[LetterOutcome]:
        """Deliver dead letters again."""
        return await self._events.ask(lambda pod: pod.replay(action))

    async def drop(self, action: LetterAction) -> Sequence[LetterOutcome]:
        """Remove dead letters for good."""
        return await self._events.ask(lambda pod: pod.drop(action))

    async def replay_events(self, broker: str, replay: Replay) -> ReplayPage:
        """Deliver events again that a broker still has."""
        return await self._events.ask(lambda pod: pod.replay_events(broker, replay))

    async def explain(self, question: Question) -> Answer:
        """What happened to the events of an id."""
        return await self._events.ask(lambda pod: pod.explain(question))

    async def call(self, call_id: str) -> CallStatus | None:
        """A call that nobody waits for."""
        return await self._events.call(call_id)

    async def calls(self, selection: CallSelection) -> CallPage:
        """Calls that nobody waits for."""
        return await self._events.calls(selection)

    async def put_blob(self, chunks: AsyncIterator[bytes], content_type: str | None) -> str:
        """Store a blob."""
        return await self._blobs.put_stream(chunks, content_type)

    async def get_blob(self, name: str) -> OpenBlob:
        """Read a blob."""
        return await self._blobs.open(name)

    # --- functions --------------------------------------------------------------------------------------

    async def _shown(self, keys: Sequence[str]) -> list[FunctionStatus]:
        loads, scaling = await asyncio.gather(self._observe(), self._scaling())
        shown = []
        for name in keys:
            item = self._functions.items.get(name)
            if item is None:  # it went while the others were asked
                continue
            metadata = item["metadata"]
            facts = views.Facts(
                url=f"{self._url}/function/{metadata['name']}.{metadata['namespace']}",
                pods=self._pods.of(name),
                requests=loads[name].requests_total if name in loads else 0,
                scaling=scaling.get(name),
            )
            shown.append(views.function_status(item, facts))
        return shown

    async def _observe(self) -> Mapping[str, Load]:
        """What the gateways have counted; while none answers, what they told last."""
        try:
            self._last_loads = await self._loads.observe()
        except ClusterError as error:
            _LOG.warning("requests are shown as they were counted last: %s", error)
        return self._last_loads

    async def _scaling(self) -> Mapping[str, ScalingState]:
        """What the controller that leads has decided; the others tell of nothing."""
        found: dict[str, ScalingState] = {}
        for body in (await self._ask(self._agents("controller"), b"/scaling")).values():
            try:
                found |= told.decode(body)
            except ValueError as error:
                _LOG.warning("a controller does not tell what it decided: %s", error)
        return found

    # --- the platform's own pods ------------------------------------------------------------------------

    def _agents(self, component: str = "") -> dict[str, Endpoint]:
        """Where the pods of a part that are ready, or all, listen for other parts, by their uids."""
        return {
            pod["metadata"]["uid"]: endpoint
            for pod in self._parts.items.values()
            if is_ready(pod)
            and component in ("", pod["metadata"]["labels"][names.COMPONENT])
            and (endpoint := agent(pod)) is not None
        }

    async def _memory(self) -> dict[str, int]:
        """What each pod's process has of memory, by the pod's uid, as far as its metrics say so."""
        found = {}
        for uid, body in (await self._ask(self._agents(), b"/metrics")).items():
            match = _MEMORY.search(body)
            if match is not None:
                found[uid] = int(float(match[1]))
        return found

    async def _ask(self, agents: Mapping[str, Endpoint], path: bytes) -> dict[str, bytes]:
        """What each answers; one that does not is left out."""

        async def ask(endpoint: Endpoint) -> bytes | None:
            try:
                response = await self._client.request(
                    endpoint, b"GET", path, b"", b"", timeout_seconds=_ASK_SECONDS
                )
            except TransportError as error:
                _LOG.info("%s does not answer %s: %s", endpoint, path.decode(), error)
                return None
            return response.body if response.status == 200 else None

        answers = await asyncio.gather(*map(ask, agents.values()))
        return {uid: answer for uid, answer in zip(agents, answers, strict=True) if answer is not None}
