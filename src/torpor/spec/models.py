"""What a person declares: functions, triggers that bring them events, and schedules that make some
(``torpor.dev/v1alpha1``).

These models are the only source of the declaration's shape: the loader, the JSON schema for editors and
``docs/reference.md`` come from them. A field that does nothing is not here. Names follow Knative where it has
the concept. In YAML a field has its camel-case alias; durations are written ``10s`` and held in seconds.

Objects are frozen and know nothing of files: :mod:`torpor.spec.load` makes their paths absolute.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel

from torpor.binding import encode_value
from torpor.spec.timing import (
    MAX_ATTRIBUTE_BYTES,
    ContentType,
    CronText,
    DataText,
    EventText,
    ExtensionName,
    JsonData,
    SourceText,
    ZoneName,
)
from torpor.spec.values import (
    ExpressionText,
    FilePath,
    FilterKey,
    HandlerName,
    HostName,
    ImageName,
    Name,
    Namespace,
    ObjectKey,
    ObjectName,
    PathPrefix,
    Quantity,
    VariableName,
    VariableValue,
    Whole,
    check_label,
    duration,
    fault,
    parse_quantity,
)

API_VERSION: Final = "torpor.dev/v1alpha1"
GROUP = "torpor.dev/"

MAX_FILTER_DEPTH = 4
"""How deep filters may stand in filters; the outermost are at depth 1."""
MAX_FILTER_KEYS = 64
"""How many attributes one filter may name."""

_HOUR = 3600.0
_DAY = 24 * _HOUR
# Knative's defaults: container-concurrency-target-default and requests-per-second-target-default.
_DEFAULT_TARGETS = {"concurrency": 100.0, "rps": 200.0, "lag": 100.0}

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        serialize_by_alias=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Metadata(_Model):
    """How a resource is called."""

    name: Name
    """Name, unique among the resources of its kind in its namespace."""
    namespace: Namespace = "default"
    """Namespace; a function is called `name.namespace` from outside it."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels for people and tools, shown with the resource."""

    @field_validator("labels")
    @classmethod
    def _labels(cls, value: dict[str, str]) -> dict[str, str]:
        for key, text in value.items():
            check_label(key, text)
        return value


class Source(_Model):
    """Where a function's code is."""

    path: FilePath = Path()
    """Folder of the code, relative to the file that declares it."""
    handler: HandlerName = "main"
    """Module in that folder, or `module:name` of the handler or ASGI app in it."""
    requirements: FilePath | None = None
    """File of pip requirements, relative to `path`; `requirements.txt` where there is one that names any."""


class KeyReference(_Model):
    """One key of a Secret or ConfigMap in the function's namespace."""

    name: ObjectName
    """Name of the Secret or ConfigMap."""
    key: ObjectKey
    """The key in it."""
    optional: bool = False
    """Whether the function runs without the variable where there is no such key; else it waits for it."""


class ValueFrom(_Model):
    """Where a variable's value is kept: in a Secret or in a ConfigMap."""

    secret_key_ref: KeyReference | None = None
    """A key of a Secret."""
    config_map_key_ref: KeyReference | None = Field(None, validate_default=True)
    """A key of a ConfigMap."""

    @field_validator("config_map_key_ref")
    @classmethod
    def _one(cls, value: KeyReference | None, info: ValidationInfo) -> KeyReference | None:
        if "secret_key_ref" not in info.data:  # it is wrong itself
            return value
        if value is not None and info.data["secret_key_ref"] is not None:
            raise fault("stands beside 'secretKeyRef', one of them was expected")
        if value is None and info.data["secret_key_ref"] is None:
            raise fault("is empty, secretKeyRef or configMapKeyRef was expected", whole=True)
        return value

    @property
    def reference(self) -> KeyReference:
        """The one that is given."""
        given = self.secret_key_ref or self.config_map_key_ref
        assert given is not None  # noqa: S101 - validated
        return given


class EnvVar(_Model):
    """One environment variable: its value, or where on a cluster that is kept."""

    name: VariableName
    """Name of the variable; `PORT`, `K_…` and `TORPOR_…` are the platform's."""
    value: VariableValue | None = None
    """Its value, a text: quote numbers."""
    value_from: ValueFrom | None = Field(None, validate_default=True)
    """Where a cluster keeps the value; on a laptop the variable is not set, and has to be optional."""

    @field_validator("value_from")
    @classmethod
    def _one(cls, value: ValueFrom | None, info: ValidationInfo) -> ValueFrom | None:
        if "value" not in info.data:
            return value
        if value is not None and info.data["value"] is not None:
            raise fault("stands beside 'value', one of them was expected")
        if value is None and info.data["value"] is None:
            raise fault("has no value, value or valueFrom was expected", whole=True)
        return value


class Amounts(_Model):
    """How much of a node."""

    cpu: Quantity | None = None
    """Cores, such as `100m` or `2`."""
    memory: Quantity | None = None
    """Memory, such as `128Mi`."""


class Resources(_Model):
    """What an instance takes of a cluster's node; on a laptop nothing is set aside and nothing limited."""

    limits: Amounts = Amounts()
    """The most it gets: more CPU is throttled, more memory ends it; by default 512Mi, or its request."""
    requests: Amounts = Amounts()
    """What is set aside for it; by default its limits, or 50m of CPU and 64Mi of memory."""

    @field_validator("requests")
    @classmethod
    def _within_limits(cls, value: Amounts, info: ValidationInfo) -> Amounts:
        limits = info.data.get("limits")
        for name in ("cpu", "memory") if limits is not None else ():
            asked, most = getattr(value, name), getattr(limits, name)
            if asked is not None and most is not None and parse_quantity(asked) > parse_quantity(most):
                raise fault(f"is {asked!r}, at most the limit ({most}) was expected", inner=(name,))
        return value


class Scaling(_Model):
    """How many instances run, after Knative's autoscaler (KPA)."""

    max_scale: Whole = Field(50, ge=1, le=1000)
    """Most instances at any time."""
    min_scale: Whole = Field(0, ge=0, le=1000)
    """Fewest instances at any time; 0 lets the function rest."""
    initial_scale: Whole = Field(0, ge=0, le=1000)
    """Instances to start with when the function is declared or changed."""
    metric: Literal["concurrency", "rps", "lag"] = "concurrency"
    """What is measured: requests under way at once, requests per second, or events that wait at its triggers
    or are under way (`lag`).
    """
    target: float | None = Field(None, ge=0.01, le=1_000_000)
    """What one instance should bear of it; by default `containerConcurrency` or 100, for `rps` 200, and for
    `lag` 100.
    """
    target_age_seconds: Annotated[float, *duration(0.1, _DAY)] | None = Field(None, alias="targetAge")
    """For `lag`: how long the oldest event may wait to be begun; while one waits longer, an instance is to
    bear as many times less than `target`.
    """
    target_utilization_percentage: float = Field(70.0, ge=1, le=100)
    """How much of the target is used before another instance is added, so that there is room for a burst."""
    window_seconds: Annotated[float, *duration(1, _HOUR)] = Field(60.0, alias="window")
    """Stable window: the time over which the metric is averaged."""
    panic_window_percentage: float = Field(10.0, ge=1, le=100)
    """Panic window, as a part of the stable one; it sees bursts sooner."""
    panic_threshold_percentage: float = Field(200.0, ge=110, le=1000)
    """Load in the panic window, of what the instances should bear, above which nothing is scaled down."""
    scale_down_delay_seconds: Annotated[float, *duration(0, _HOUR)] = Field(0.0, alias="scaleDownDelay")
    """How long a lower number of instances must have been enough before it is applied."""
    scale_to_zero_grace_period_seconds: Annotated[float, *duration(0, _HOUR)] = Field(
        30.0, alias="scaleToZeroGracePeriod"
    )
    """How long the last instance stays after a whole window without requests."""
    idle: Literal["zero", "parked"] | None = None
    """How the function rests: `parked`, the default on a laptop, keeps what makes waking fast; `zero`, the
    default in a cluster, keeps nothing.
    """
    parked_for_seconds: Annotated[float, *duration(1, 30 * _DAY)] = Field(600.0, alias="parkedFor")
    """How long it rests parked before it is taken to zero."""

    @field_validator("target_age_seconds")
    @classmethod
    def _of_lag(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("metric", "lag") != "lag":  # without one it is wrong itself
            raise fault("is given without 'metric: lag', which was expected beside it")
        return value

    @field_validator("min_scale", "initial_scale")
    @classmethod
    def _within_max(cls, value: int, info: ValidationInfo) -> int:
        most = info.data.get("max_scale")  # declared first, and missing here only if it is wrong itself
        if most is not None and value > most:
            raise fault(f"is {value}, at most maxScale ({most}) was expected")
        return value


class Http(_Model):
    """How a function is reached over HTTP, beside `/function/<name>`, which it always is."""

    paths: tuple[PathPrefix, ...] = Field((), strict=False, max_length=64)
    """Path prefixes that lead to the function, on its `hosts` or, without any, on every host."""
    hosts: tuple[HostName, ...] = Field((), strict=False, max_length=64)
    """Host names that lead to the function, with its `paths` or, without any, with every path."""
    methods: tuple[Method, ...] = Field((), strict=False, max_length=7)
    """Methods that it takes; all by default. Others get 405."""
    max_body_bytes: Whole = Field(16 * 1024 * 1024, ge=1, le=1024**3)
    """Largest request body, in bytes. A larger one gets 413."""


class FunctionSpec(_Model):
    """What a function is and how it runs."""

    image: ImageName | None = None
    """Container image that a cluster runs; it keeps the Knative runtime contract. A cluster needs it."""
    source: Source | None = None
    """Where its code is, for a laptop; by default, without an `image`, beside the file that declares it."""
    env: tuple[EnvVar, ...] = Field((), strict=False, max_length=1000)
    """Environment variables of its instances."""
    resources: Resources = Resources()
    """What an instance takes of a cluster's node."""
    image_pull_secrets: tuple[ObjectName, ...] = Field((), strict=False, max_length=16)
    """Secrets, in the function's namespace, that a cluster pulls the image with."""
    container_concurrency: Whole = Field(0, ge=0, le=1000)
    """Calls that one instance serves at once, a hard limit; the rest waits, in order. 0: no limit."""
    timeout_seconds: float = Field(300.0, gt=0, le=3600)
    """Seconds that a call may take; then its caller gets 504 and the work is ended."""
    scaling: Scaling = Scaling()
    """How many instances run."""
    http: Http = Http()
    """How it is reached over HTTP."""

    @field_validator("env")
    @classmethod
    def _distinct(cls, value: tuple[EnvVar, ...]) -> tuple[EnvVar, ...]:
        seen = set()
        for index, variable in enumerate(value):
            if variable.name in seen:
                raise fault(
                    f"is {variable.name!r} again, a name not yet used was expected", inner=(index, "name")
                )
            seen.add(variable.name)
        return value

    @property
    def code(self) -> Source:
        """Where its code is, what was left out filled in."""
        return self.source or Source()

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables whose values are given here, by name."""
        return {one.name: one.value for one in self.env if one.value is not None}

    @property
    def image_only(self) -> bool:
        """Whether there is an image and no code, so that a laptop can't run it."""
        return self.image is not None and self.source is None

    @property
    def target(self) -> float:
        """What one instance should bear of the scaling metric, before utilization: Knative's rule.

        For ``concurrency`` it is never above a hard limit (``containerConcurrency``).
        """
        limit = float(self.container_concurrency) if self.scaling.metric == "concurrency" else 0.0
        if self.scaling.target is None:
            return limit or _DEFAULT_TARGETS[self.scaling.metric]
        return min(self.scaling.target, limit) if limit else self.scaling.target


class _Resource(_Model):
    api_version: Literal["torpor.dev/v1alpha1"] = API_VERSION
    """Version of the declaration's form."""
    metadata: Metadata
    """How it is called."""

    @property
    def key(self) -> str:
        """``namespace/name``: how the platform's parts call it."""
        return f"{self.metadata.namespace}/{self.metadata.name}"


class Function(_Resource):
    """A function: code that is called over HTTP, by events, or both."""

    kind: Literal["Function"] = "Function"
    """`Function`."""
    spec: FunctionSpec = FunctionSpec()
    """What it is and how it runs."""


class Filter(_Model):
    """One condition on an event's attributes or data: exactly one of these dialects.

    Source: CloudEvents Subscriptions API 1.0, section 3.2.4.
    """

    exact: dict[FilterKey, str] | None = Field(None, min_length=1, max_length=MAX_FILTER_KEYS)
    """Attributes, or paths into JSON data such as `data.order.id`, that have exactly these values."""
    prefix: dict[FilterKey, str] | None = Field(None, min_length=1, max_length=MAX_FILTER_KEYS)
    """Attributes, or paths into JSON data, that are there and start with these texts."""
    suffix: dict[FilterKey, str] | None = Field(None, min_length=1, max_length=MAX_FILTER_KEYS)
    """Attributes, or paths into JSON data, that are there and end with these texts."""
    sql: ExpressionText | None = None
    """An expression of CloudEvents SQL 1.0 on attributes, such as `type = 'a' AND EXISTS subject`."""
    all: tuple[Filter, ...] | None = Field(None, strict=False, min_length=1, max_length=64)
    """Filters that all match."""
    any: tuple[Filter, ...] | None = Field(None, strict=False, min_length=1, max_length=64)
    """Filters of which at least one matches."""
    not_: Filter | None = Field(None, alias="not", validate_default=True)
    """A filter that does not match."""

    @field_validator("exact", "prefix", "suffix")
    @classmethod
    def _values(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        for name, text in (value or {}).items():
            if not text:
                raise fault("is empty, a text of one or more characters was expected", inner=(name,))
        return value

    @field_validator("*")
    @classmethod
    def _one_dialect(cls, value: Any, info: ValidationInfo) -> Any:
        given = [name for name, earlier in info.data.items() if earlier is not None]
        if value is not None and given:
            raise fault(f"stands beside '{given[0]}', one dialect a filter was expected: make it two filters")
        if (
            value is None
            and info.field_name == "not_"
            and not given
            and len(info.data) == len(cls.model_fields) - 1
        ):
            raise fault(
                "is empty, one of exact, prefix, suffix, sql, all, any or not was expected", whole=True
            )
        return value


class Subscriber(_Model):
    """Who gets the events."""

    function: Name
    """Name of a function in the trigger's namespace."""


class DeadLetterSink(_Model):
    """Where dead letters go, beside the list of them: to a function or into a broker."""

    function: Name | None = None
    """Name of a function in the trigger's namespace that gets them, by the trigger's own schedule."""
    broker: Name | None = Field(None, validate_default=True)
    """Name of another broker in the trigger's namespace that they are put into."""

    @field_validator("broker")
    @classmethod
    def _one(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "function" not in info.data:  # it is wrong itself
            return value
        if value is not None and info.data["function"] is not None:
            raise fault("stands beside 'function', one of them was expected")
        if value is None and info.data["function"] is None:
            raise fault("is empty, function or broker was expected", whole=True)
        return value


class Delivery(_Model):
    """How delivery is tried again, after Knative's contract; in the end the event becomes a dead letter."""

    retry: Whole = Field(10, ge=0, le=100)
    """How often a failed delivery is tried again."""
    backoff_policy: Literal["linear", "exponential"] = "exponential"
    """How the wait grows: `backoffDelay` times the number of the retry, or times two to the power of it."""
    backoff_delay_seconds: Annotated[float, *duration(0.001, _HOUR)] = Field(0.2, alias="backoffDelay")
    """The wait that the policy starts from."""
    timeout_seconds: Annotated[float, *duration(0.001, _HOUR)] | None = Field(None, alias="timeout")
    """How long one delivery may take; by default the function's `timeoutSeconds`."""
    jitter_percentage: Whole = Field(10, ge=0, le=100)
    """How much longer than it should be a wait is at most; how much follows from event and attempt."""
    retry_after_max_seconds: Annotated[float, *duration(0, _HOUR)] = Field(_HOUR, alias="retryAfterMax")
    """The most that a `Retry-After` of the function counts for; `0s` has it ignored."""
    dead_letter_sink: DeadLetterSink | None = None
    """Where dead letters go, beside the list of them."""


class RateLimit(_Model):
    """At most so many deliveries in a time, first ones and retries together, spread evenly over it."""

    events: Whole = Field(ge=1, le=100_000)
    """How many; a tenth of them, ten at most, may go at once after a rest."""
    per_seconds: Annotated[float, *duration(0.1, _DAY)] = Field(1.0, alias="per")
    """In how much time."""


class Backlog(_Model):
    """How many events may wait for the trigger, and what becomes of more."""

    limit: Whole = Field(ge=1, le=10_000_000)
    """How many may wait, be under way or wait for a retry; `parallelism` at least."""
    on_limit: Literal["reject", "deadLetterOldest"] = "reject"
    """`reject`: producers of events that match are answered 429; `deadLetterOldest`: the oldest that wait
    become dead letters.
    """


class Batch(_Model):
    """Several events in one call, as `application/cloudevents-batch+json`; each keeps attempts of its own."""

    size: Whole = Field(100, ge=2, le=1000)
    """Most events of one call."""
    wait_seconds: Annotated[float, *duration(0.001, 300)] = Field(1.0, alias="wait")
    """How long the first one waits for others."""


class Join(_Model):
    """Holds the parts of a fan-out back until all are there, and delivers them as one batch."""

    by: Literal["fanoutid"] = "fanoutid"
    """Attribute that the parts of one group share."""
    timeout_seconds: Annotated[float, *duration(0.001, 7 * _DAY)] = Field(300.0, alias="timeout")
    """How long a group may stay incomplete, from its first part on."""
    on_timeout: Literal["deadLetter", "partial"] = "deadLetter"
    """What becomes of an incomplete group then: dead letters, or a delivery of the parts that came."""


def _depth(each: Filter) -> int:
    inner = (*(each.all or ()), *(each.any or ()), *((each.not_,) if each.not_ else ()))
    return 1 + max((_depth(one) for one in inner), default=0)


class TriggerSpec(_Model):
    """Which events go to which function, and how."""

    broker: Name = "default"
    """Broker, of the trigger's namespace, whose events it looks at."""
    filters: tuple[Filter, ...] = Field((), strict=False, max_length=64)
    """Conditions that an event must meet, all of them; without any, every event does."""
    subscriber: Subscriber
    """Who gets the events."""
    delivery: Delivery = Delivery()
    """How delivery is tried again."""
    parallelism: Whole = Field(32, ge=1, le=1000)
    """Most events under way to the function at once; never more than all its instances serve
    (`containerConcurrency` times `maxScale`).
    """
    rate_limit: RateLimit | None = None
    """How often the function is called at most; without it, as often as events come."""
    backlog: Backlog | None = None
    """How many events may wait; without it, as many as the broker can hold."""
    ordering: Literal["none", "key"] = "none"
    """`key`: events with the same `partitionkey` go one at a time, in the order in which they came."""
    batch: Batch | None = None
    """Calls the function with several events at once."""
    join: Join | None = None
    """Joins the parts of a fan-out before they are delivered."""

    @field_validator("filters")
    @classmethod
    def _flat(cls, value: tuple[Filter, ...]) -> tuple[Filter, ...]:
        for index, each in enumerate(value):
            if (depth := _depth(each)) > MAX_FILTER_DEPTH:
                text = f"is nested {depth} levels deep, at most {MAX_FILTER_DEPTH} were expected"
                raise fault(text, inner=(index,))
        return value

    @field_validator("delivery")
    @classmethod
    def _goes_elsewhere(cls, value: Delivery, info: ValidationInfo) -> Delivery:
        sink = value.dead_letter_sink
        if sink is not None and sink.broker is not None and sink.broker == info.data.get("broker"):
            text = f"is '{sink.broker}', the trigger's own broker, another one was expected"
            raise fault(text, inner=("deadLetterSink", "broker"))
        return value

    @field_validator("backlog")
    @classmethod
    def _holds_what_is_under_way(cls, value: Backlog | None, info: ValidationInfo) -> Backlog | None:
        least = info.data.get("parallelism")
        if value is not None and least is not None and value.limit < least:
            text = f"is {value.limit}, at least parallelism ({least}) was expected"
            raise fault(text, inner=("limit",))
        return value

    @field_validator("ordering")
    @classmethod
    def _keeps_the_oldest(cls, value: str, info: ValidationInfo) -> str:
        backlog = info.data.get("backlog")
        if value == "key" and backlog is not None and backlog.on_limit == "deadLetterOldest":
            raise fault("is 'key' beside 'onLimit: deadLetterOldest', 'onLimit: reject' was expected there")
        return value

    @field_validator("batch")
    @classmethod
    def _batches_without_order(cls, value: Batch | None, info: ValidationInfo) -> Batch | None:
        if value is not None and info.data.get("ordering") == "key":
            raise fault(
                "stands beside 'ordering: key', one of them was expected: a key has one event at once"
            )
        return value

    @field_validator("join")
    @classmethod
    def _joins_without_batch(cls, value: Join | None, info: ValidationInfo) -> Join | None:
        if value is not None and info.data.get("batch") is not None:
            raise fault("stands beside 'batch', one of them was expected: a group is one call already")
        return value

    @field_validator("join")
    @classmethod
    def _joins_without_backlog(cls, value: Join | None, info: ValidationInfo) -> Join | None:
        if value is not None and info.data.get("backlog") is not None:
            raise fault("stands beside 'backlog', one of them was expected: a group needs all its parts")
        return value

    @field_validator("join")
    @classmethod
    def _joins_without_order(cls, value: Join | None, info: ValidationInfo) -> Join | None:
        if value is not None and info.data.get("ordering") == "key":
            raise fault("stands beside 'ordering: key', one of them was expected: a group has no key")
        return value

    @property
    def one_worker(self) -> bool:
        """Whether no two processes may deliver for it at the same time."""
        exclusive = self.join is not None or self.rate_limit is not None or self.ordering == "key"
        return exclusive or self.one_by_one

    @property
    def one_by_one(self) -> bool:
        """Whether an event is begun only once the one before is settled."""
        return self.parallelism == 1


class Trigger(_Resource):
    """A trigger: brings a broker's events to a function."""

    kind: Literal["Trigger"] = "Trigger"
    """`Trigger`."""
    spec: TriggerSpec
    """Which events go to which function, and how."""

    @property
    def function_key(self) -> str:
        """Key of the function that it delivers to."""
        return f"{self.metadata.namespace}/{self.spec.subscriber.function}"

    @property
    def broker_key(self) -> str:
        """Key of the broker that it reads."""
        return f"{self.metadata.namespace}/{self.spec.broker}"

    @property
    def sink_function_key(self) -> str | None:
        """Key of the function that gets its dead letters, if one does."""
        sink = self.spec.delivery.dead_letter_sink
        return None if sink is None or sink.function is None else f"{self.metadata.namespace}/{sink.function}"

    @property
    def sink_broker_key(self) -> str | None:
        """Key of the broker that its dead letters are put into, if there is one."""
        sink = self.spec.delivery.dead_letter_sink
        return None if sink is None or sink.broker is None else f"{self.metadata.namespace}/{sink.broker}"


class ScheduledEvent(_Model):
    """The event that each firing is; its `id` is made of the schedule and the planned time, its `time`."""

    type: EventText | None = None
    """Its type; by default the schedule's name and `.fired`."""
    source: SourceText | None = None
    """Its source, a URI-reference; by default `/schedules/NAMESPACE/NAME`."""
    subject: EventText | None = None
    """Its subject; by default it has none."""
    data: JsonData = None
    """Its data: any value, which is sent as JSON of 64 KiB at most."""
    data_text: DataText | None = None
    """Its data as a text that is sent as it is, in the place of `data`."""
    data_content_type: ContentType | None = None
    """What its data is; by default `application/json`, and for `dataText` `text/plain; charset=utf-8`."""
    extensions: dict[ExtensionName, EventText] = Field(default_factory=dict, max_length=32)
    """Further attributes, such as `partitionkey`."""

    @field_validator("data_text")
    @classmethod
    def _one(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("data") is not None:
            raise fault("stands beside 'data', one of them was expected")
        return value

    @field_validator("data_content_type")
    @classmethod
    def _of_something(cls, value: str | None, info: ValidationInfo) -> str | None:
        there = {"data", "data_text"} <= info.data.keys()  # one that is missing is wrong itself
        if value is not None and there and info.data["data"] is None and info.data["data_text"] is None:
            raise fault("is given without data, data or dataText was expected beside it")
        return value

    @field_validator("extensions")
    @classmethod
    def _not_too_large(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        names = ("type", "source", "subject")
        texts = [*(text for name in names if (text := info.data.get(name))), *value, *value.values()]
        size_bytes = sum(len(encode_value(text)) for text in texts)
        if size_bytes > MAX_ATTRIBUTE_BYTES:
            raise fault(
                f"have, with type, source and subject, {size_bytes} bytes, at most {MAX_ATTRIBUTE_BYTES} were"
                " expected"
            )
        return value


class ScheduleSpec(_Model):
    """When an event goes into which broker."""

    cron: CronText
    """When: five fields as in crontab(5), six with the seconds first, or `@hourly` and the like."""
    time_zone: ZoneName = "UTC"
    """The time zone of `cron`, by its name in the IANA database."""
    jitter_seconds: Annotated[float, *duration(0, _DAY)] = Field(0.0, alias="jitter")
    """Each firing is put off by up to so long; by how much follows from the schedule and the planned time."""
    missed: Literal["skip", "run-once", "run-all"] = "skip"
    """What becomes of firings whose time passed while the platform was down: none of them is made up for, the
    newest one, or the newest hundred.
    """
    suspend: bool = False
    """Whether it rests; firings of that time are not made up for."""
    broker: Name = "default"
    """Broker, of the schedule's namespace, that the event goes into."""
    event: ScheduledEvent = ScheduledEvent()
    """The event."""


class Schedule(_Resource):
    """A schedule: puts an event into a broker at given times."""

    kind: Literal["Schedule"] = "Schedule"
    """`Schedule`."""
    spec: ScheduleSpec
    """When an event goes into which broker."""

    @property
    def broker_key(self) -> str:
        """Key of the broker that it fills."""
        return f"{self.metadata.namespace}/{self.spec.broker}"


Resource = Function | Trigger | Schedule
"""Whatever can be declared."""
KINDS: dict[str, type[Resource]] = {"Function": Function, "Trigger": Trigger, "Schedule": Schedule}
