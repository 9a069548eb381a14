"""What the doctor concludes from what it has seen. Pure: it takes facts, and returns findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torpor.cli import figures
from torpor.cli.output import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torpor.spec.status import BrokerStatus, FunctionStatus, PlatformStatus

MIN_PYTHON = (3, 11)
MIN_FREE_BYTES = 1024**3
MIN_OPEN_FILES = 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: whether it is well, what was seen, and what to do when it is not.

    A ``note`` is worth knowing and keeps nothing from working.
    """

    subject: str
    outcome: Literal["ok", "note", "problem"]
    seen: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do about what may be wrong with a platform, as of one on this machine."""

    versions: str = "Start the platform anew, with this version."
    part: str = "It is started again by itself; if it does not come back, see what 'torpor up' prints."
    faults: str = "Put it right; what was declared before goes on until then."


def python(version: tuple[int, int, int]) -> Finding:
    """Whether Python is new enough."""
    text = ".".join(map(str, version))
    if version[:2] < MIN_PYTHON:
        return Finding("Python", "problem", text, "Install Python 3.11 or newer, and Torpor with it.")
    return Finding("Python", "ok", text)


def open_files(limit: int) -> Finding:
    """Whether a process may have enough files and connections open."""
    if limit < MIN_OPEN_FILES:
        advice = f"Raise it, with 'ulimit -n {MIN_OPEN_FILES}' or in the system's limits."
        return Finding("open files", "problem", f"limited to {limit}", advice)
    return Finding("open files", "ok", f"limited to {limit}")


def disk(what: str, path: str, free_bytes: int) -> Finding:
    """Whether there is room below ``path``."""
    seen = f"{figures.size(free_bytes)} free at {path}"
    if free_bytes < MIN_FREE_BYTES:
        advice = f"Free at least {figures.size(MIN_FREE_BYTES)}: events and environments are kept on disk."
        return Finding(what, "problem", seen, advice)
    return Finding(what, "ok", seen)


def platform(
    status: PlatformStatus, where: str, own_version: str, advice: Advice | None = None
) -> list[Finding]:
    """What there is to say of a platform that answered at ``where``."""
    advice = advice or Advice()
    found = [Finding("platform", "ok", f"Torpor {status.version} answers at {where}")]
    if status.version != own_version:
        seen = f"this command is of version {own_version}, the platform of {status.version}"
        found.append(Finding("versions", "note", seen, advice.versions))
    for part in status.parts:
        seen = ", ".join(filter(None, (part.version, part.address, part.detail))) or "runs"
        if part.healthy:
            found.append(Finding(part.name, "ok", seen))
        else:
            found.append(Finding(part.name, "problem", seen, advice.part))
    found += [Finding("declarations", "problem", fault, advice.faults) for fault in status.faults]
    if not status.faults:
        seen = f"{plural(status.functions, 'function')} and {plural(status.triggers, 'trigger')}"
        if status.schedules:
            seen = f"{seen.replace(' and', ',')} and {plural(status.schedules, 'schedule')}"
        found.append(Finding("declarations", "ok", seen))
    return found


def functions(found: Iterable[FunctionStatus]) -> list[Finding]:
    """A problem for each function that can't serve."""
    return [
        Finding(
            f"function {one.namespace}/{one.name}",
            "problem",
            one.reason,
            f"See 'torpor logs {one.name} -n {one.namespace}'.",
        )
        for one in found
        if not one.ready
    ]


def brokers(found: Sequence[BrokerStatus]) -> list[Finding]:
    """What each broker has done, and whether any event became a dead letter."""
    findings = []
    for one in found:
        seen = f"{one.published} published, {one.delivered} delivered, {one.pending} waiting"
        if one.dead_lettered:
            seen += f", {one.dead_lettered} dead letters"
            advice = "See 'torpor list triggers' for whose, and 'torpor logs' of the function for why."
            findings.append(Finding(f"broker {one.namespace}/{one.name}", "note", seen, advice))
        else:
            findings.append(Finding(f"broker {one.namespace}/{one.name}", "ok", seen))
    return findings
