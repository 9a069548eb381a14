"""``python -m tests.cluster VERB``: the cluster for tests, by hand."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path

from tests.cluster import skaffold
from tests.cluster.binaries import Binaries
from tests.cluster.clusters import find
from tests.cluster.gomod import PROGRAMS
from tests.cluster.own_node import OwnNode
from tests.cluster.settings import ClusterError, Settings


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up", help="have it run, and print how to reach it")
    verbs.add_parser("down", help="end it, and leave nothing")
    verbs.add_parser("kubeconfig", help="print where its kubeconfig is")
    load = verbs.add_parser("import", help="bring images of the builder to its nodes")
    load.add_argument("references", nargs="+")
    tool = verbs.add_parser("tool", help="print where a program is, made first if need be")
    tool.add_argument("name", choices=sorted(PROGRAMS))
    on_node = verbs.add_parser("on-node", help="run a command on a node started here")
    on_node.add_argument("command", nargs=argparse.REMAINDER)
    build = verbs.add_parser("build", help="build an image by podman, and bring it to a node started here")
    build.add_argument("reference")
    build.add_argument("path", nargs="?", type=Path, help="of a function; else it is the platform's image")
    build.add_argument("function", nargs="?", help="its name, where the path has several")
    with_skaffold = verbs.add_parser("skaffold", help="run Skaffold on a node started here, by default dev")
    with_skaffold.add_argument("arguments", nargs=argparse.REMAINDER)
    verbs.add_parser("base-image", help="print the base image for builds by podman, made first if need be")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Do what ``arguments`` ask for; raises :class:`ClusterError`."""
    given = _parser().parse_args(arguments)
    settings = Settings.from_environment()
    if given.verb == "tool":
        print(Binaries(settings, _say).path(given.name))
        return
    source = find(settings, _say)
    if given.verb == "up":
        began = time.monotonic()
        source.up()
        _say(f"ready after {time.monotonic() - began:.1f} s")
        print(f"export KUBECONFIG={shlex.quote(str(source.kubeconfig))}")
    elif given.verb == "down":
        source.down()
    elif given.verb == "kubeconfig":
        print(source.kubeconfig)
    elif given.verb == "import":
        for reference in given.references:
            source.import_image(reference)
    elif not isinstance(source, OwnNode):
        raise ClusterError(f"'{given.verb}' is for a node that is started here")
    elif given.verb == "base-image":
        print(source.podman.base_image())
    elif given.verb == "build":
        skaffold.build(source, given.reference, given.path, given.function)
    elif given.verb == "skaffold":
        source.up()
        sys.exit(skaffold.run(source, settings, *given.arguments))
    else:
        command = source.on_node(*given.command)
        os.execvp(command[0], command)


if __name__ == "__main__":
    try:
        main()
    except ClusterError as error:
        sys.exit(f"Error: {error}")
