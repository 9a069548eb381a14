"""The configuration for kind, read and judged by kind's own code, which Docker need not be there for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cluster import shell
from tests.cluster.golang import Go
from tests.cluster.gomod import PROGRAMS
from tests.cluster.settings import ROOT, ClusterError, Settings

_SOURCE = Path(__file__).parent / "kindcheck" / "main.go"


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program with kind's loader, which is internal to kind: its module claims to be below it."""
    folder = tmp_path_factory.mktemp("kind")
    kind = PROGRAMS["kind"]
    lines = ("module sigs.k8s.io/kind/pkg/check", "go 1.21", f"require {kind.module} {kind.version}")
    (folder / "go.mod").write_text("\n".join(lines) + "\n")
    shutil.copy(_SOURCE, folder)
    go = Go(Settings.from_environment(), print)
    go.run("build", "-o", "check", ".", cwd=folder, environment={"GOFLAGS": "-buildvcs=false -mod=mod"})
    return folder / "check"


def test_kind_takes_it(checker: Path) -> None:
    assert shell.run(checker, ROOT / "k8s" / "kind.yaml") == "1 nodes\n"


@pytest.mark.parametrize(
    ("right", "wrong"), [("nodes:", "knots:"), ("containerPort: 30080", "containerPort: 99999")]
)
def test_the_check_finds_what_is_wrong(checker: Path, tmp_path: Path, right: str, wrong: str) -> None:
    broken = tmp_path / "kind.yaml"
    broken.write_text((ROOT / "k8s" / "kind.yaml").read_text("utf-8").replace(right, wrong))
    with pytest.raises(ClusterError, match=r"knots|99999|invalid"):
        shell.run(checker, broken)
