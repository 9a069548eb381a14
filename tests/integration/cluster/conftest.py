"""What the platform's parts in a cluster need of the outside: a real NATS server."""

from tests.integration.events.conftest import nats

__all__ = ["nats"]
