"""What can keep the demo from running."""

from torpor.errors import TorporError


class DemoError(TorporError):
    """The demo cannot go on; the text says why."""
