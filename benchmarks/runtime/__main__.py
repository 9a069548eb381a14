"""``python -m benchmarks.runtime``: requests per second of processor time, all runtimes in one run.

Every subject serves the same request (one CloudEvent in binary mode with 60 bytes of JSON) to the same
load, in turns, round by round, so that what else the machine does meets all of them alike. Counted is the
processor time of the server's whole process tree. What is promised of Torpor is checked: the exit status is
1 when it does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import venv
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
SUBJECTS = HERE / "subjects"
OTHERS = Path("~/.cache/torpor/bench").expanduser()
RESULT = Path("build/bench/runtime.json")
START_SECONDS = 60.0
CONNECTIONS = 32


@dataclass
class Subject:
    """One server: its command, with ``{port}`` in it, and the status that it answers."""

    name: str
    command: list[str]
    status: int = 204
    environment: dict[str, str] = field(default_factory=dict)
    microseconds: list[float] = field(default_factory=list)

    @property
    def cost(self) -> float:
        """Processor time of one request, in microseconds: the median of the rounds."""
        return statistics.median(self.microseconds)


@dataclass(frozen=True)
class Promise:
    """``subject`` serves at least ``factor`` times the requests of ``other`` per second of processor time."""

    subject: str
    other: str
    factor: float


PROMISES = (
    Promise("torpor, CloudEvent", "bare ASGI", 0.6),
    Promise("torpor, pydantic", "bare ASGI", 0.45),
    Promise("torpor, CloudEvent", "functions-framework", 5.0),
    Promise("torpor, CloudEvent", "functions-framework --asgi", 1.0),
    Promise("torpor, CloudEvent", "func-python", 1.0),
)


def _subjects(others: Path) -> list[Subject]:
    python = sys.executable
    uvicorn = [*("-m", "uvicorn", "--no-access-log", "--log-level", "warning"), *("--loop", "uvloop")]
    limits = {"TORPOR_CONTAINER_CONCURRENCY": "100", "TORPOR_TIMEOUT_SECONDS": "30"}
    torpor = [python, "-m", "torpor.cli", "runtime", "--folder", str(SUBJECTS), "--host", "127.0.0.1"]
    framework = [str(others / "bin" / "functions-framework"), "--target", "handle", "--host", "127.0.0.1"]
    event, asgi = (str(SUBJECTS / f"functions_framework_{kind}.py") for kind in ("event", "asgi"))
    cloudevent = ["--signature-type", "cloudevent", "--port", "{port}"]
    return [
        Subject(
            "bare ASGI",
            [
                python,
                *uvicorn,
                "--http",
                "httptools",
                "--app-dir",
                str(SUBJECTS),
                "bare:app",
                "--port",
                "{port}",
            ],
        ),
        Subject("torpor, CloudEvent", [*torpor, "--port", "{port}", "event"], environment=limits),
        Subject("torpor, pydantic", [*torpor, "--port", "{port}", "data"], environment=limits),
        Subject("functions-framework", [*framework, "--source", event, *cloudevent], 200),
        Subject("functions-framework --asgi", [*framework, "--asgi", "--source", asgi, *cloudevent], 200),
        Subject(
            "func-python",
            [str(others / "bin" / "python"), str(SUBJECTS / "func_python_event.py")],
            environment={"LISTEN_ADDRESS": "127.0.0.1:{port}"},
        ),
    ]


class Server:
    """A subject that runs."""

    def __init__(self, subject: Subject) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.subject = subject
        given = {key: value.format(port=self.port) for key, value in subject.environment.items()}
        self._process = psutil.Popen(
            [part.format(port=self.port) for part in subject.command],
            env={**os.environ, **given},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> None:
        """Return when it listens."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise SystemExit(f"{self.subject.name} did not start: {' '.join(self.subject.command)}")

    def cpu_seconds(self) -> float:
        """Processor time so far, of it and of all below it."""
        total = 0.0
        for process in (self._process, *self._process.children(recursive=True)):
            times = process.cpu_times()
            total += times.user + times.system
        return total

    def measure(self, seconds: float) -> float:
        """Microseconds of processor time that one request costs."""
        before = self.cpu_seconds()
        load = [sys.executable, str(HERE / "load.py"), str(self.port), str(CONNECTIONS), str(seconds)]
        done = subprocess.run(
            [*load, str(self.subject.status)],
            capture_output=True,
            text=True,
            timeout=seconds + 60,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{self.subject.name}: {done.stderr.strip().splitlines()[-1]}")
        answers = int(done.stdout)
        if not answers:
            raise SystemExit(f"{self.subject.name} did not answer within {seconds:g} seconds")
        return (self.cpu_seconds() - before) / answers * 1e6

    def close(self) -> None:
        """End it, and all below it."""
        processes = [self._process, *self._process.children(recursive=True)]
        for process in processes:
            process.terminate()
        _, alive = psutil.wait_procs(processes, timeout=10)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=10)


def _environment(console: Console) -> Path:
    """The environment of the other runtimes; made when it is not there or out of date."""
    wanted = (HERE / "requirements.txt").read_text()
    stamp = OTHERS / "installed.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        console.print(f"Installing what is compared into {OTHERS}.")
        venv.create(OTHERS, with_pip=True, clear=True)
        python = str(OTHERS / "bin" / "python")
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "-r", str(HERE / "requirements.txt")], check=True)
        stamp.write_text(wanted)
    return OTHERS


def _run(subjects: list[Subject], rounds: int, seconds: float, console: Console) -> None:
    with ExitStack() as stack:
        servers = [Server(subject) for subject in subjects]
        for server in servers:
            stack.callback(server.close)
        for server in servers:
            server.wait()
            server.measure(3.0)  # warm: some listen long before they can answer
        for number in range(rounds):
            console.print(f"Round {number + 1} of {rounds}", end="\r")
            for server in servers:
                server.subject.microseconds.append(server.measure(seconds))


def _report(subjects: list[Subject], console: Console) -> bool:
    costs = {subject.name: subject.cost for subject in subjects}
    table = Table(title="One CloudEvent, processor time")
    for column in ("server", "µs a request", "requests a CPU-second", "of bare ASGI"):
        table.add_column(column, justify="left" if column == "server" else "right")
    for name, cost in costs.items():
        table.add_row(name, f"{cost:.0f}", f"{1e6 / cost:,.0f}", f"{costs['bare ASGI'] / cost:.2f}")
    console.print(table)
    checked = []
    for promise in PROMISES:
        ratio = costs[promise.other] / costs[promise.subject]
        checked.append({"promise": vars(promise), "ratio": round(ratio, 3), "holds": ratio >= promise.factor})
        mark = "[green]holds[/]" if ratio >= promise.factor else "[red]does not hold[/]"
        wanted = f"at least {promise.factor:g} times {promise.other}"
        console.print(f"{promise.subject}: {wanted}: {ratio:.2f}, {mark}")
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "microseconds": {name: round(cost, 1) for name, cost in costs.items()},
        "rounds": {subject.name: [round(cost, 1) for cost in subject.microseconds] for subject in subjects},
        "promises": checked,
    }
    RESULT.write_text(json.dumps(document, indent=2) + "\n")
    return all(entry["holds"] for entry in checked)


def main() -> int:
    """Run it all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runtime", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of load, for each server in each round")
    arguments = parser.parse_args()
    console = Console()
    subjects = _subjects(_environment(console))
    _run(subjects, arguments.rounds, arguments.seconds, console)
    return 0 if _report(subjects, console) else 1


if __name__ == "__main__":
    raise SystemExit(main())
