"""Writes the pages of ``docs/`` that come from the code: ``python -m tools.make_docs``.

A test holds the pages to the code.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torpor.problems import ProblemType
from torpor.settings import (
    ApiSettings,
    ClusterSettings,
    ControllerSettings,
    EventsSettings,
    GatewaySettings,
    PlatformSettings,
    RuntimeSettings,
    TracedSettings,
)
from torpor.spec import chart, crds, policies, schema
from torpor.spec.written import write

if TYPE_CHECKING:
    from collections.abc import Collection

    from pydantic import BaseModel

DOCS = Path(__file__).resolve().parent.parent / "docs"
CHARTS = DOCS.parent / "charts"


def settings() -> str:
    """Every environment variable that is read."""
    return (
        "# Settings\n\n"
        "Environment variables are the only settings beside declarations and command-line options. An empty\n"
        "one counts as not set; a wrong one ends the process with a message that names it.\n\n"
        "## What a function's process reads\n\n"
        "`torpor up` sets these for each instance; in a container of your own you set them.\n\n"
        f"{_beside(RuntimeSettings)}\n"
        "## What the command line and the platform read\n\n"
        f"{_beside(PlatformSettings)}\n"
        "## Traces\n\n"
        "Functions, `torpor up`, and in a cluster the controller and the gateways read these of\n"
        "OpenTelemetry's variables, and OpenTelemetry reads the others of its own where spans are exported\n"
        "(`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_BSP_...`). See [Traces](tracing.md).\n\n"
        f"{_variables(TracedSettings)}\n"
        "## What the platform's pods read in a cluster\n\n"
        f"{_variables(ClusterSettings)}\n"
        "The controller beside:\n\n"
        f"{_beside(ControllerSettings)}\n"
        "A gateway beside:\n\n"
        f"{_beside(GatewaySettings)}\n"
        "An events pod beside:\n\n"
        f"{_beside(EventsSettings)}\n"
        "The API beside:\n\n"
        f"{_beside(ApiSettings)}"
    )


def _beside(model: type[BaseModel]) -> str:
    """What ``model`` has beside what it has in common with others, which has a table of its own."""
    common = [base for base in (ClusterSettings, TracedSettings) if issubclass(model, base)]
    return _variables(model, {name for base in common for name in base.model_fields})


def _variables(model: type[BaseModel], without: Collection[str] = ()) -> str:
    rows = ["| variable | default | what |", "| --- | --- | --- |"]
    for name, field in model.model_fields.items():
        if name in without:
            continue
        default = "" if field.default in ("", None) else f"`{_default(field.default)}`"
        rows.append(f"| `{field.alias}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


def _default(value: object) -> str:
    return str(value).replace(str(Path.home()), "~") if isinstance(value, Path) else str(value)


def problems() -> str:
    """Every kind of problem document."""
    rows = [
        f"| `{kind.slug}` | {kind.status} | {kind.title} |"
        for kind in sorted(ProblemType, key=lambda kind: (kind.status, kind.slug))
    ]
    return (
        "# Problems\n\n"
        "Errors of the platform, not of your functions, are problem documents (RFC 9457,\n"
        "`application/problem+json`). `type` is `https://torpor.dev/problems/` and one of the names\n"
        "below; it is stable, and programs may compare it. `detail` says what was wrong with this very\n"
        "request, and what was expected; `requestId` is also in the header `x-request-id`, and in the\n"
        "logs. `Retry-After` (seconds) is there where trying again helps.\n\n"
        "| name | status | title |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"
    )


def pages() -> dict[str, str]:
    """The pages by their names."""
    return {"settings.md": settings(), "problems.md": problems()}


def main() -> None:
    """Write them."""
    write(schema.files(), DOCS)
    for folder in (DOCS.parent / "k8s", CHARTS / "torpor" / "files"):
        write(crds.files(), folder / "crds")
        write(policies.files(), folder / "policies")
    write(chart.files(), CHARTS / "functions")
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
