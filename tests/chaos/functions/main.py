"""What works while processes are killed: it answers what it was given, so that the outcome can be counted."""

from collections.abc import Iterator
from typing import Any

from torpor import Context, RejectError, RetryError, function


@function(emits="job.done")
def work(job: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Fails as often as the job says; some are never done."""
    if job["poison"]:
        raise RejectError("this job is poison")
    if ctx.attempt <= job["fails"]:
        raise RetryError("not yet")
    return {"number": job["number"]}


@function(emits="group.part")
def split(group: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Parts that are joined again."""
    for index in range(group["size"]):
        yield {"group": group["number"], "index": index}


@function(emits="group.part.done")
def part(one: dict[str, Any]) -> dict[str, Any]:
    """One of them."""
    return one


@function(emits="group.joined")
def join(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """All of them."""
    return {"group": parts[0]["group"], "indexes": sorted(one["index"] for one in parts)}


@function(emits="step.done")
def step(one: dict[str, Any]) -> dict[str, Any]:
    """One step of a sequence, whose steps must not overtake each other."""
    return one
