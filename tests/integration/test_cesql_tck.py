"""CloudEvents SQL passes the conformance tests that are published for it (the TCK of its specification).

They come from the Go module of the CloudEvents project that has them, at one version whose checksum is
written down here. One case, `NOT 10`, is there as the specification's section 3.7 has it, by which every
whole number is true or false; the folder beside the specification wants a *CastError* of it.
"""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.cluster.golang import Go
from tests.cluster.settings import Settings
from torpor.cesql.expression import Expression
from torpor.errors import ExpressionError

MODULE, VERSION = "github.com/cloudevents/sdk-go/sql/v2", "v2.16.2"
CHECKSUM = "h1:ufWHXiH1ZVd0WDbzTX9Nod9Sdq5wcnaqyL0iA1fBwYs="
CASES = 275
FILES = 18
ERRORS = {
    "parse": "ParseError",
    "math": "MathError",
    "cast": "CastError",
    "missingFunction": "MissingFunctionError",
    "missingAttribute": "MissingAttributeError",
    "functionEvaluation": "FunctionEvaluationError",
    "generic": "GenericError",
}
EVENT = {"specversion": "1.0", "id": "1", "source": "/tck", "type": "tck"}


@pytest.fixture(scope="module")
def tck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the cases."""
    home = Path("~/.cache/torpor/go").expanduser()
    home.mkdir(parents=True, exist_ok=True)
    go = Go(Settings.from_environment({}), print)
    said = go.run(
        *("mod", "download", "-json", f"{MODULE}@{VERSION}"),
        cwd=tmp_path_factory.mktemp("go"),
        environment={"GOMODCACHE": str(home), "GOFLAGS": ""},
    )
    module = json.loads(said)
    assert module["Sum"] == CHECKSUM
    return Path(module["Dir"]) / "test" / "tck"


def cases(file: Path) -> list[dict[str, Any]]:
    """The cases of ``file``; their expressions are texts, whatever YAML would take them for."""
    text = file.read_text("utf-8")
    typed, plain = YAML(typ="safe").load(text)["tests"], YAML(typ="base").load(text)["tests"]
    return [as_written(one, other) for one, other in zip(typed, plain, strict=True)]


def as_written(typed: Any, plain: Any) -> Any:
    if isinstance(typed, dict):
        return {
            name: plain[name] if name == "expression" else as_written(value, plain[name])
            for name, value in typed.items()
        }
    return plain if isinstance(typed, dt.date) else typed


def outcome(expression: str, event: dict[str, Any]) -> tuple[Any, list[str]]:
    try:
        result = Expression(expression).evaluate(event)
    except ExpressionError:
        return False, ["ParseError"]
    return result.value, [problem.kind.value for problem in result.problems]


def test_every_case_of_the_tck(tck: Path) -> None:
    files = sorted(tck.glob("*.yaml"))
    wrong, seen = [], 0
    for file in files:
        for case in cases(file):
            seen += 1
            event = {**case.get("event", EVENT), **case.get("eventOverrides", {})}
            value, errors = outcome(case["expression"], event)
            expected = [ERRORS[case["error"]]] if "error" in case else []
            right = "result" not in case or (type(value), value) == (type(case["result"]), case["result"])
            if not right or errors != expected:
                wrong.append((file.name, case["name"], case["expression"], value, errors))
    assert wrong == []
    assert (len(files), seen) == (FILES, CASES)
