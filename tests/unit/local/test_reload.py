"""Bringing what runs to what is declared, with a provider and a data path that note what they are asked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from torpor.errors import EventLogError, HandlerError
from torpor.local.reload import MISSING_SECONDS, PATIENCE_SECONDS, Reloader
from torpor.local.reports import News, Report
from torpor.providers.base import FunctionState, Instance, Revision
from torpor.testing.clock import START_SECONDS, MovableClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torpor.spec.models import Function, Schedule, Trigger

TRIGGER = """---
apiVersion: torpor.dev/v1alpha1
kind: Trigger
metadata: {name: t}
spec: {subscriber: {function: two}}
"""
CODE = "from torpor import function\n\n@function\nasync def {name}(data: dict) -> None: ...\n"


class _Provider:
    """Runs nothing; refuses code with ``raise`` in it."""

    def __init__(self) -> None:
        self.running: dict[str, Revision] = {}
        self.calls: list[str] = []
        self.hurry = asyncio.Event()

    async def apply(self, revision: Revision) -> None:
        self.calls.append(f"apply {revision.name}")
        code = (revision.function.spec.code.path / "main.py").read_text()
        if "raise" in code:
            raise HandlerError("it raises at import")
        if "# slow" in code:
            await self.hurry.wait()
        self.running[revision.function.key] = revision

    async def remove(self, key: str) -> None:
        self.calls.append(f"remove {key}")
        self.running.pop(key, None)

    def scale(self, key: str, replicas: int) -> None:
        raise AssertionError("the reloader does not scale")

    def instances(self, key: str) -> Sequence[Instance]:
        return ()

    def state(self, key: str) -> FunctionState | None:
        revision = self.running.get(key)
        return None if revision is None else FunctionState(revision.name, 0, 0, "fork", None)

    def subscribe(self, on_change: Callable[[str], None]) -> None:
        raise AssertionError("the reloader does not subscribe")

    async def close(self) -> None:
        raise AssertionError("the reloader does not close")


class _DataPath:
    def __init__(self) -> None:
        self.functions: Mapping[str, Function] = {}
        self.triggers: Mapping[str, Trigger] = {}
        self.schedules: Mapping[str, Schedule] = {}
        self.problems: dict[str, str | None] = {}
        self.broken = False

    async def serve(
        self,
        functions: Mapping[str, Function],
        triggers: Mapping[str, Trigger],
        schedules: Mapping[str, Schedule],
    ) -> None:
        if self.broken:
            raise EventLogError("the broker is away")
        self.functions, self.triggers, self.schedules = functions, triggers, schedules

    def fail(self, key: str, problem: str | None) -> None:
        self.problems[key] = problem


class _Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.provider = _Provider()
        self.data_path = _DataPath()
        self.told: list[Report] = []
        self.clock = MovableClock()
        self.reloader = Reloader([folder], self.provider, self.data_path, self.clock, self.told.append)

    def write(self, name: str, code: str | None = None, yaml: str = "") -> None:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "main.py").write_text(CODE.format(name=name) if code is None else code)
        (folder / "function.yaml").write_text(
            "apiVersion: torpor.dev/v1alpha1\nkind: Function\n"
            f"metadata: {{name: {name}}}\nspec: {{source: {{path: .}}}}\n{yaml}"
        )

    def reload(self) -> None:
        self.told.clear()
        self.provider.calls.clear()
        asyncio.run(self.reloader.reload())

    def later(self, seconds: float) -> None:
        asyncio.run(self.clock.advance(seconds))
        self.reload()

    def news(self, kind: News) -> list[str]:
        return [report.text for report in self.told if report.news is kind]


def test_new_functions_are_applied_and_served(tmp_path: Path) -> None:
    bench = _Bench(tmp_path)
    bench.write("one")
    bench.write("two")
    bench.reload()
    assert sorted(bench.provider.calls) == ["apply one-00001", "apply two-00001"]
    assert sorted(bench.data_path.functions) == ["default/one", "default/two"]
    assert bench.news(News.LOADED) == ["2 functions, 0 triggers"]
    assert bench.reloader.current.loaded_at == START_SECONDS
    assert bench.reloader.current.origins["Function", "default/one"].endswith("one/function.yaml:1")


def test_what_has_not_changed_is_left_alone(tmp_path: Path) -> None:
    bench = _Bench(tmp_path)
    bench.write("one")
    bench.reload()
    bench.reload()
    assert bench.provider.calls == []
    assert bench.told == []


def test_changed_code_becomes_the_next_revision(tmp_path: Path) -> None:
    bench = _Bench(tmp_path)
    bench.write("one")
    bench.reload()
    bench.write("one", CODE.format(name="one") + "# changed")
    bench.reload()
    assert bench.provider.calls == ["apply one-00002"]


def test_schedules_are_taken_over_and_may_change_alone(tmp_path: Path) -> None:
    bench = _Bench(tmp_path)
    yaml = (
        "---\napiVersion: torpor.dev/v1alpha1\nkind: Schedule\nmetadata: {name: s}\nspec: {cron: '@daily'}\n"
    )
    bench.write("one", yaml=yaml)
    bench.reload()
    assert bench.data_path.schedules["default/s"].spec.cron == "@daily"
    assert bench.news(News.LOADED) == ["1 function, 0 triggers, 1 schedule"]
    bench.write("one", yaml=yaml.replace("@daily", "@hourly"))
    bench.reload()
    assert bench.data_path.schedules["default/s"].spec.cron == "@hourly"
    assert bench.news(News.LOADED) == ["1 function, 0 triggers, 1 schedule"]
    bench.write("one", yaml=yaml.replace("@daily", "61 * * * *"))
    bench.reload()
    assert bench.data_path.schedules["default/s"].spec.cron == "@hourly"
    [fault] = bench.news(News.FAULT)[:1]
    assert "spec.cron: is '61 * * * *'" in fault


def test_a_function_that_is_gone_is_removed_after_its_routes(tmp_path: Path) -> None:
    bench = _Bench(tmp_path)
    bench.write("one")
    bench.write("two")
    bench.reload()
    for name in ("main.py", "function.yaml"):
        (tmp_path / "two" / name).unlink()
    bench.reload()
    assert bench.provider.calls == []
    bench.later(MISSING_SECONDS)
    assert bench.provider.calls == ["remove default/two"]
    assert sorted(bench.data_path.functions) == ["default/one"]


def test_a_file_that_is_missing_for_a_moment_changes_nothing(tmp_path: Path) -> None:
    bench = _Bench(tmp_path)
    bench.write("one")
    bench.write("two", yaml=TRIGGER)
    bench.reload()
    text = (tmp_path / "two" / "function.yaml").read_text()
    (tmp_path / "two" / "function.yaml").unlink()
    (tmp_path / "two" / "main.py").rename(tmp_path / "two" / "main.py~")
    bench.write("one", CODE.format(name="one") + "# changed")
    bench.reload()
    assert bench.provider.calls == ["apply one-00002"]
    assert sorted(bench.data_path.functions) == ["default/one", "default/two"]
    assert sorted(bench.data_path.triggers) == ["default/t"]
    (tmp_path / "two" / "main.py~").rename(tmp_path / "two" / "main.py")
    (tmp_path / "two" / "function.yaml").write_text(text)
    bench.later(MISSING_SECONDS / 2)
    bench.later(MISSING_SECONDS)
    assert "remove default/two" not in bench.provider.calls
    assert sorted(bench.data_path.triggers) == ["default/t"]


def test_a_function_that_is_gone_is_removed_without_a_further_change(tmp_path: Path) -> None:
    async def main() -> None:
        bench = _Bench(tmp_path)
        bench.write("one")
        bench.write("two")
        await bench.reloader.reload()
        for name in ("main.py", "function.yaml"):
            (tmp_path / "two" / name).unlink()
        await bench.reloader.reload()
        await asyncio.sleep(0)
        await bench.clock.advance(MISSING_SECONDS)
        while "remove default/two" not in bench.provider.calls:
            await asyncio.sleep(0.001)  # files are read in a thread
        await bench.reloader.close()

    asyncio.run(main())


def test_a_function_that_takes_long_holds_up_no_other(tmp_path: Path) -> None:
    async def main() -> None:
        bench = _Bench(tmp_path)
        bench.write("one")
        bench.write("slow", CODE.format(name="slow") + "# slow")
        reloading = asyncio.create_task(bench.reloader.reload())
        while bench.clock.next_due is None:
            await asyncio.sleep(0.001)  # files are read in a thread
        await bench.clock.advance(PATIENCE_SECONDS)
        await reloading
        assert list(bench.provider.running) == ["default/one"]
        assert sorted(bench.data_path.functions) == ["default/one", "default/slow"]
        assert [report.subject for report in bench.told if report.news is News.STARTING] == ["default/slow"]
        bench.write("one", CODE.format(name="one") + "# changed")
        await bench.reloader.reload()
        assert bench.provider.running["default/one"].name == "one-00002"
        bench.provider.hurry.set()
        while "default/slow" not in bench.provider.running:
            await asyncio.sleep(0)
        await bench.reloader.close()

    asyncio.run(main())


def test_a_wrong_file_changes_nothing_and_is_told_once(tmp_path: Path) -> None:
    bench = _Bench(tmp_path)
    bench.write("one")
    bench.reload()
    before = bench.reloader.current.functions
    bench.write("one", yaml="---\nkind: Trigge\n")
    bench.reload()
    assert bench.provider.calls == []
    assert any("did you mean 'Trigger'?" in text for text in bench.news(News.FAULT))
    assert bench.reloader.current.functions == before
    assert bench.reloader.current.faults
    bench.reload()
    assert bench.told == []


def test_a_fault_that_is_put_right_is_gone(tmp_path: Path) -> None:
    bench = _Bench(tmp_path)
    bench.write("one", yaml="---\nkind: Trigge\n")
    bench.reload()
    bench.write("one")
    bench.reload()
    assert bench.reloader.current.faults == ()
    assert bench.news(News.LOADED) == ["1 function, 0 triggers"]


def test_a_broken_function_keeps_the_version_before(tmp_path: Path) -> None:
    bench = _Bench(tmp_path)
    bench.write("one")
    bench.reload()
    served = bench.data_path.functions["default/one"]
    bench.write("one", CODE.format(name="one") + "raise ValueError", yaml="")
    bench.reload()
    assert bench.news(News.BROKEN) == ["it raises at import"]
    assert bench.provider.running["default/one"].name == "one-00001"
    assert bench.data_path.functions["default/one"] is served
    assert bench.data_path.problems["default/one"] is None  # the one before serves on
    assert bench.reloader.current.problems == {"default/one": "it raises at import"}


def test_a_broken_function_stays_broken_while_others_change(tmp_path: Path) -> None:
    bench = _Bench(tmp_path)
    bench.write("one", CODE.format(name="one") + "raise ValueError")
    bench.reload()
    assert bench.data_path.problems == {"default/one": "it raises at import"}
    bench.write("two")
    bench.reload()
    assert bench.provider.calls == ["apply two-00001"]
    assert bench.reloader.current.problems == {"default/one": "it raises at import"}
    bench.write("one")
    bench.reload()
    assert bench.reloader.current.problems == {}
    assert bench.data_path.problems["default/one"] is None


def test_what_the_data_path_could_not_take_in_is_applied_again(tmp_path: Path) -> None:
    bench = _Bench(tmp_path)
    bench.write("one")
    bench.data_path.broken = True
    bench.reload()
    assert bench.news(News.FAULT) == ["the broker is away"]
    bench.data_path.broken = False
    bench.reload()
    assert bench.provider.calls == ["apply one-00002"]
    assert sorted(bench.data_path.functions) == ["default/one"]
    assert bench.reloader.current.faults == ()
