"""Where a resource is declared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torpor.spec.faults import Fault, FieldPath, field_name, line_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Origin:
    """The file that declares a resource, its name for people, and the lines of the fields given there."""

    path: Path
    file: str
    lines: Mapping[FieldPath, int]

    @property
    def line(self) -> int:
        """The line where the declaration starts."""
        return self.lines[()]

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    def fault(self, where: FieldPath, message: str) -> Fault:
        """A fault of the field at ``where``."""
        return Fault(self.file, line_of(where, self.lines), field_name(where), message)
