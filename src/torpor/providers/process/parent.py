"""The warm parent of one environment: a process with the runtime imported, that templates are forked from.

Started as ``python -P -m torpor.providers.process.parent DESCRIPTOR PID``: the descriptor of its end of the
control channel and the process id of the platform. It ends when the platform does.
"""

from __future__ import annotations

import gc
import socket
import sys

from torpor.providers.process import child, wire
from torpor.providers.process.forker import Forker
from torpor.providers.process.lifeline import die_with_parent, set_name


def main() -> None:
    """Fork templates, and instances of modules that can't be forked, for as long as the platform is there."""
    descriptor, platform = map(int, sys.argv[1:3])
    die_with_parent(platform)
    set_name("torpor-parent")
    channel = socket.socket(fileno=descriptor)
    channel.set_inheritable(False)
    child.warm_up()
    # What is here stays: spare each fork the collector's walk over it, which would copy its pages.
    gc.collect()
    gc.freeze()
    wire.send(channel, {"event": "warm"})
    work = Forker(channel, child.from_parent).run()
    del channel  # closed by the fork; this is the child from here on
    work()


if __name__ == "__main__":
    main()
