"""Requirements of a function, installed from wheels made here: no network is needed."""

from __future__ import annotations

import asyncio
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from torpor.errors import EnvironmentBuildError
from torpor.providers.process.environments import Environments

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = "default/echo"


def wheel(folder: Path, name: str, version: str, code: str, requires: str = "") -> str:
    """Make a wheel in ``folder``; the requirement that names it."""
    folder.mkdir(exist_ok=True, parents=True)
    file = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}.py", code)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return f"./{file.name}\n"


def test_a_function_has_what_it_requires_and_the_runtime_beside_it(run: Callable[..., None]) -> None:
    async def test(rig: Any) -> None:
        code = "import httptools, tiny\nasync def answer(path): return f'{tiny.__file__} {tiny.SIZE}'"
        folder = rig.write(code)
        requirements = folder / "requirements.txt"
        requirements.write_text("# what it needs\n" + wheel(folder, "tiny", "1.0", "SIZE = 3"))
        await rig.apply(folder, requirements=requirements)
        await rig.scale(1)
        file, size = (await rig.call()).split()
        assert file.startswith(str(rig.folder / "cache" / "environments"))
        assert size == "3"
        assert rig.provider.state(KEY).start_method == "fork"
        # The same name and version with other content is another environment.
        requirements.write_text(wheel(folder, "tiny", "1.0", "SIZE = 4"))
        await rig.apply(folder, requirements=requirements)
        await rig.until(lambda: rig.provider.instances(KEY)[0].revision == "echo-00002" and rig.endpoints)
        assert (await rig.call()).endswith(" 4")
        await rig.until(lambda: len(rig.provider.instances(KEY)) == 1)

    run(test)


def test_requirements_that_are_met_need_no_environment(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("pydantic>=2\nuvicorn[standard]>=0.1; python_version < '3'\n")
    assert asyncio.run(Environments(tmp_path / "cache").packages(requirements)) is None
    assert not (tmp_path / "cache").exists()


def test_platforms_that_build_the_same_environment_at_once_build_it_once(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(wheel(tmp_path, "tiny", "1.0", "SIZE = 3"))

    async def build() -> None:
        first, second = Environments(tmp_path / "cache"), Environments(tmp_path / "cache")
        folders = await asyncio.gather(*(each.packages(requirements) for each in (first, second, first)))
        assert len(set(folders)) == 1
        assert folders[0] is not None
        assert (folders[0] / "tiny.py").exists()

    asyncio.run(build())
    names = {path.name for path in (tmp_path / "cache" / "environments").iterdir()}
    assert len([name for name in names if not name.endswith(".lock")]) == 1


@pytest.mark.parametrize(
    ("requirements", "text"),
    [
        ("./there-is-none.whl\n", "there-is-none.whl"),
        ("not a requirement\n", "nvalid requirement"),
    ],
)
def test_what_pip_says_against_requirements_is_told(tmp_path: Path, requirements: str, text: str) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text(requirements)
    with pytest.raises(EnvironmentBuildError, match=text) as raised:
        asyncio.run(Environments(tmp_path / "cache").packages(file))
    assert str(file) in str(raised.value)
    assert not [path for path in (tmp_path / "cache" / "environments").iterdir() if path.suffix != ".lock"]


def test_requirements_that_would_break_the_runtime_are_refused(tmp_path: Path) -> None:
    folder = tmp_path
    old = wheel(folder, "uvloop", "0.1", "OLD = True")
    file = folder / "requirements.txt"
    file.write_text(old)
    with pytest.raises(EnvironmentBuildError, match="uvloop"):
        asyncio.run(Environments(tmp_path / "cache").packages(file))


def test_a_folder_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentBuildError, match="can't be read"):
        asyncio.run(Environments(tmp_path).packages(tmp_path / "none.txt"))


def test_ending_ends_what_is_being_built(run: Callable[..., None]) -> None:
    async def test(rig: Any) -> None:
        folder = rig.write()
        requirements = folder / "requirements.txt"
        requirements.write_text(wheel(folder, "tiny", "1.0", "SIZE = 3"))
        environments = rig.provider._around.environments
        applying = asyncio.create_task(rig.apply(folder, requirements=requirements))
        await rig.until(lambda: environments._running)
        (process,) = environments._running
        rig.provider._close_seconds = 0.0
        await rig.provider.close()
        with pytest.raises(EnvironmentBuildError):
            await applying
        assert process.returncode is not None

    run(test)
