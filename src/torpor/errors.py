"""The one error tree of Torpor.

::

    TorporError
    ├── DeclarationError        what a person declared is wrong; carries every fault found
    ├── ExpressionError         a text is no expression of CloudEvents SQL
    ├── MalformedEventError     bytes that claim to be a CloudEvent and are not
    ├── HandlerError            a module or handler that cannot serve as a function
    ├── EnvironmentBuildError   a function's requirements could not be installed
    ├── ImageBuildError         a function's image could not be built
    ├── TransportError          a call on the data path got no answer
    │   ├── ConnectError        no connection was made: nothing was sent
    │   ├── BrokenError         the connection ended before the whole answer came
    │   ├── TimedOutError       no answer within the time allowed
    │   ├── AnswerTooLargeError the answer is over the caller's limit
    │   └── ForbiddenAddressError  a callback leads where callbacks may not go
    ├── GatewayError            the gateway refused its configuration, or could not take it in
    ├── EventLogError           the broker refused, or could not be reached
    │   ├── RecordTooLargeError one record is over the broker's limit
    │   ├── StreamFullError     a stream has no room for more
    │   └── SupersededError     another has taken over what was to be written to
    ├── BlobError               a blob could not be stored or read
    │   └── BlobNotFoundError   there is no blob of that name
    ├── BodyTooLargeError       a request's body is over the limit
    ├── ApiError                a call of a platform's REST API did not succeed
    │   ├── UnreachableError    no platform answers there
    │   └── RefusedError        the platform answered with a problem
    ├── ClusterError            a call of the Kubernetes API did not succeed
    │   ├── ClusterUnreachableError  no API server answers; what was sent may have been done
    │   ├── ClusterMissingError      there is no such object
    │   ├── ClusterConflictError     the object has changed, or is there already
    │   ├── ClusterGoneError         a watch can't go on from there: list anew
    │   └── ClusterRefusedError      what was sent is wrong, or not allowed
    │       └── ClusterEndingError       nothing is made in a namespace that is being deleted
    └── StartError              a part of the platform could not be started

Errors of other libraries are mapped to one of these where they enter, and chained with ``from``.
"""

from __future__ import annotations


class TorporError(Exception):
    """The root of everything that Torpor raises on purpose."""


class DeclarationError(TorporError):
    """Declared resources are wrong.

    ``faults`` has one line for each fault, in the form ``file:line: field: problem, expectation``.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class ExpressionError(TorporError):
    """A text is no expression of CloudEvents SQL (a *ParseError* of its specification, section 3.3).

    ``position`` counts characters from 1; the text says what is there, and what was expected.
    """

    def __init__(self, position: int, text: str) -> None:
        super().__init__(text)
        self.position = position


class MalformedEventError(TorporError):
    """A message claims to be a CloudEvent and breaks the specification; the text says how."""


class HandlerError(TorporError):
    """A module can't be imported, or holds no handler that can serve as a function."""


class EnvironmentBuildError(TorporError):
    """The environment of a function could not be built from its requirements."""


class ImageBuildError(TorporError):
    """The image of a function could not be built; the text says why, or where it is said."""


class TransportError(TorporError):
    """A call on the data path got no answer."""


class ConnectError(TransportError):
    """No connection could be made, so nothing was sent: the call may safely be made again."""


class BrokenError(TransportError):
    """The connection ended after something was sent and before the whole answer came."""


class TimedOutError(TransportError):
    """No answer came within the time allowed."""


class AnswerTooLargeError(TransportError):
    """The answer is larger than its caller takes; the text names the limit."""


class ForbiddenAddressError(TransportError):
    """A callback leads where callbacks may not go, and nowhere else: nothing was sent."""


class GatewayError(TorporError):
    """The gateway refused its configuration, or could not take it in; what it had goes on."""


class EventLogError(TorporError):
    """The broker refused a call, or could not be reached; whether it took effect is unknown."""


class RecordTooLargeError(EventLogError):
    """A record is larger than the broker takes; nothing was written."""


class StreamFullError(EventLogError):
    """A stream holds as much as it may; nothing was written."""


class SupersededError(EventLogError):
    """Another has taken over what this was about to write to; nothing was written."""


class BlobError(TorporError):
    """A blob could not be stored or read."""


class BlobLostError(BlobError):
    """What was stored can't be had any more."""


class BlobDamagedError(BlobLostError):
    """What is in a blob store is not what was stored."""


class BlobNotFoundError(BlobLostError):
    """There is no blob of that name."""


class BodyTooLargeError(TorporError):
    """A request's body is over the limit of where it was sent to; the text names the limit."""


class ApiError(TorporError):
    """A call of a platform's REST API did not succeed."""


class UnreachableError(ApiError):
    """No platform answers at the address, or it stopped answering in the middle; the text says what to do."""


class RefusedError(ApiError):
    """The platform answered with an error.

    ``status`` is the HTTP status, ``title`` and ``detail`` are for a person, ``problem_type`` is the stable
    URI of the problem (empty when the answer was no problem document), and ``request_id`` leads to the
    platform's logs.
    """

    def __init__(
        self, status: int, title: str, detail: str = "", problem_type: str = "", request_id: str | None = None
    ) -> None:
        super().__init__(detail or title)
        self.status = status
        self.title = title
        self.detail = detail
        self.problem_type = problem_type
        self.request_id = request_id


class ClusterError(TorporError):
    """A call of the Kubernetes API did not succeed.

    ``status`` is the HTTP status (0: there was no answer), ``reason`` Kubernetes' word for it, and ``causes``
    are fields and what is wrong with each.
    """

    def __init__(
        self, message: str, *, status: int = 0, reason: str = "", causes: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.causes = causes


class ClusterUnreachableError(ClusterError):
    """No API server answers, or it stopped in the middle: whether a write was done is unknown."""


class ClusterMissingError(ClusterError):
    """There is no such object, or no such kind of object."""


class ClusterConflictError(ClusterError):
    """The object has changed since it was read, is there already, or a field of it belongs to another."""


class ClusterGoneError(ClusterError):
    """The version to go on from is too old; what holds now has to be listed anew."""


class ClusterRefusedError(ClusterError):
    """What was sent is wrong, or this account may not do it; the text is the API server's."""


class ClusterEndingError(ClusterRefusedError):
    """The namespace is being deleted with all that is in it, and nothing more is made there."""


class StartError(TorporError):
    """A part of the platform could not be started; the text says what a person can do."""
