"""The command line as a person uses it on the cluster."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LIMIT_SECONDS = 180.0
_END_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


@dataclass(slots=True)
class Following:
    """A command that goes on: the lines that it has printed so far."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def read(self, stream: IO[str]) -> None:
        """Take up all lines, until the end."""
        for line in stream:
            self.lines.append(line.rstrip("\n"))

    def end(self) -> int:
        """Press Ctrl-C, and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(_END_SECONDS)


class Commands:
    """Runs ``torpor`` in a ``context`` of a kubeconfig."""

    def __init__(self, kubeconfig: Path, context: str = "kube:") -> None:
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "TORPOR_CONTEXT": context}

    def run(self, *arguments: str, text: str = "", timeout_seconds: float = _LIMIT_SECONDS) -> Said:
        """What ``torpor ARGUMENTS`` says."""
        done = subprocess.run(
            [sys.executable, "-m", "torpor.cli", *arguments],
            input=text,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def good(self, *arguments: str, text: str = "") -> Said:
        """What ``torpor ARGUMENTS`` says, which must end well."""
        said = self.run(*arguments, text=text)
        assert said.code == 0, f"torpor {' '.join(arguments)}: {said.err}{said.out}"
        return said

    @contextlib.contextmanager
    def following(self, *arguments: str) -> Iterator[Following]:
        """``torpor ARGUMENTS``, which goes on until the block is left."""
        process = subprocess.Popen(
            [sys.executable, "-m", "torpor.cli", *arguments],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        following = Following(process)
        reader = threading.Thread(target=following.read, args=(process.stdout,))
        reader.start()
        try:
            yield following
        finally:
            process.kill()
            process.wait()
            reader.join()
            process.stdout.close()
