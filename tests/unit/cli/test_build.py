"""``torpor build``: what goes into an image, how builders are called, and what is said when one fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from importlib import metadata
from io import BytesIO
from pathlib import Path

import pytest

from torpor import cli
from torpor.cli import VERBS, image, wheel
from torpor.cli.build import command, find_runtime
from torpor.cli.context import Context, Runtime, context
from torpor.errors import ImageBuildError

ROOT = Path(__file__).parents[3]
INDEX = Runtime("torpor==1", ("torpor==1",))
APP = "from torpor import function\n\n\n@function\ndef hello() -> str:\n    return 'hello'\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    code = tmp_path / "hello"
    code.mkdir()
    (code / "main.py").write_text(APP)
    return code


def made(folder: Path, requirements: Path | None = None) -> Context:
    return context("FROM x\nENV TORPOR_HANDLER=main\n", "main:hello", INDEX, folder, requirements)


def test_the_template_in_the_repository_is_the_one_that_ships() -> None:
    shipped = ROOT / "src" / "torpor" / "cli" / "templates" / "Dockerfile.template"
    assert (ROOT / "Dockerfile.template").read_bytes() == shipped.read_bytes()


# --- the context ------------------------------------------------------------------------------------------


def test_code_goes_in_without_tests_hidden_files_and_what_is_made_of_it(folder: Path) -> None:
    for name in ("lib/util.py", "data.yaml", "test_main.py", "conftest.py", "function.yaml", ".env", "x.pyc"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    for name in (".venv/a.py", "__pycache__/b.py", "build/c.py"):
        (folder / name).parent.mkdir()
        (folder / name).write_text("")
    assert sorted(made(folder).files) == [
        "Dockerfile",
        "app/data.yaml",
        "app/lib/util.py",
        "app/main.py",
        "requirements/requirements.txt",
        "torpor/dependencies.txt",
        "torpor/requirement.txt",
    ]


def test_the_handler_is_filled_in(folder: Path) -> None:
    """In the text, since builders' caches may overlook that an argument differs."""
    assert made(folder).files["Dockerfile"] == b"FROM x\nENV TORPOR_HANDLER=main:hello\n"
    template = (ROOT / "Dockerfile.template").read_text("utf-8")
    assert template.count("\nENV TORPOR_HANDLER=main\n") == 1


def test_requirements_take_along_what_they_name(folder: Path) -> None:
    (folder / "more").mkdir()
    (folder / "requirements.txt").write_text(
        "-r more/base.txt\npillow>=12 # pictures\n./more/own.whl\n-e more/package[extra]\nx @ https://x/y\n"
    )
    (folder / "more" / "base.txt").write_text("--constraint=limits.txt\n# -r nowhere.txt\n")
    (folder / "more" / "limits.txt").write_text("pillow<13\n")
    (folder / "more" / "own.whl").write_bytes(b"")
    (folder / "more" / "package").mkdir()
    (folder / "more" / "package" / "pyproject.toml").write_text("")
    files = made(folder, folder / "requirements.txt").files
    assert sorted(name for name in files if name.startswith("requirements/")) == [
        "requirements/more/base.txt",
        "requirements/more/limits.txt",
        "requirements/more/own.whl",
        "requirements/more/package/pyproject.toml",
        "requirements/requirements.txt",
    ]


def test_requirements_elsewhere_are_refused(folder: Path) -> None:
    (folder.parent / "shared.txt").write_text("")
    (folder / "requirements.txt").write_text("-r ../shared.txt\n")
    with pytest.raises(ImageBuildError, match=r"names \.\./shared\.txt, a place below .*hello was expected"):
        made(folder, folder / "requirements.txt")


def test_links_stay_links_and_lead_nowhere_else(folder: Path, tmp_path: Path) -> None:
    (folder / "again.py").symlink_to("main.py")
    found = made(folder)
    assert found.links == {"app/again.py": "main.py"}
    found.write(tmp_path / "out")
    assert (tmp_path / "out" / "app" / "again.py").read_text() == APP
    (folder / "away").symlink_to("/etc")
    with pytest.raises(ImageBuildError, match="away is a link, a target that exists below"):
        made(folder)


def test_the_digest_says_what_is_in_it_and_nothing_else(folder: Path) -> None:
    digest = made(folder).digest("base")
    os.utime(folder / "main.py", (1, 1))
    (folder / "test_main.py").write_text("changed")
    assert made(folder).digest("base") == digest
    assert made(folder).digest("another") != digest
    (folder / "main.py").write_text(APP + "\n")
    assert made(folder).digest("base") != digest


def test_what_is_written_has_fixed_times_and_modes(folder: Path, tmp_path: Path) -> None:
    (folder / "tool").write_text("#!/bin/sh\n")
    (folder / "tool").chmod(0o700)
    (folder / "main.py").chmod(0o600)
    made(folder).write(tmp_path / "out")
    for name, mode in (("app/main.py", 0o644), ("app/tool", 0o755), ("app", 0o755)):
        stat = (tmp_path / "out" / name).stat()
        assert (stat.st_mode & 0o777, stat.st_mtime) == (mode, 0), name


def test_a_folder_without_bounds_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torpor.cli.context.MAX_FILES", 2)
    for number in range(2):
        (folder / f"{number}.txt").write_text("")
    with pytest.raises(ImageBuildError, match="holds more than 2 files or 1024 MiB"):
        made(folder)


# --- the runtime ------------------------------------------------------------------------------------------


def test_a_checkout_brings_a_wheel_of_itself(tmp_path: Path) -> None:
    runtime = find_runtime(None)
    assert runtime.wheel is not None
    assert runtime.wheel == find_runtime(None).wheel  # the same bytes, so that a layer is found again
    assert runtime.requirement == f"/opt/torpor/{runtime.wheel.name}"
    assert any(need.startswith("fastapi") for need in runtime.dependencies)
    assert not any("extra" in need for need in runtime.dependencies)
    path = tmp_path / runtime.wheel.name
    path.write_bytes(runtime.wheel.content)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*install, str(tmp_path / "site"), str(path)], check=True)
    show = "import torpor.cli; print(torpor.cli.__file__); raise SystemExit(torpor.cli.run(['--version']))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    said = subprocess.run(
        [sys.executable, "-c", show], env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert said == [
        str(tmp_path / "site/torpor/cli/__init__.py"),
        f"torpor, version {metadata.version('torpor')}",
    ]
    with zipfile.ZipFile(BytesIO(runtime.wheel.content)) as archive:
        assert "torpor/cli/templates/Dockerfile.template" in archive.namelist()


def test_what_came_from_an_index_comes_from_there_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel, "is_from_index", lambda _: True)
    requirement = f"torpor=={metadata.version('torpor')}"
    assert find_runtime(None) == Runtime(requirement, (requirement,))


def test_a_person_may_name_the_runtime(tmp_path: Path) -> None:
    assert find_runtime("torpor[blobs]>=1") == Runtime("torpor[blobs]>=1", ("torpor[blobs]>=1",))
    path = tmp_path / "torpor-1-py3-none-any.whl"
    with pytest.raises(ImageBuildError, match="can't be read: No such file"):
        find_runtime(str(path))
    path.write_bytes(b"wheel")
    assert find_runtime(str(path)) == Runtime(
        f"/opt/torpor/{path.name}", (), wheel.Wheel(path.name, b"wheel")
    )


# --- names and calls --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reference", ["hello", "hello:1", "localhost/hello:1.0", "r.example:5000/team/a_b:V1-x", "a.b/c"]
)
def test_references(reference: str) -> None:
    assert image.check_reference(reference) is None


@pytest.mark.parametrize(
    "reference", ["", "Hello", "-x", "a b", "hello:", "hello:é", "a//b", "x" * 256, "a\n"]
)
def test_what_is_no_reference(reference: str) -> None:
    assert "is no image reference" in (image.check_reference(reference) or "")


def test_how_a_builder_is_called() -> None:
    choices = image.Choices("podman", "base:1", "https://index", "linux/arm64", ("--network=host",))
    assert image.command(choices, "r/hello:1", Path("/c")) == [
        *("podman", "build", "--platform", "linux/arm64", "--build-arg", "BASE=base:1"),
        *("--build-arg", "INDEX=https://index", "--network=host"),
        *("--tag", "r/hello:1", "--file", "/c/Dockerfile", "/c"),
    ]
    assert "--platform" not in image.command(image.Choices("docker"), "x", Path("/c"))


# --- the verb ---------------------------------------------------------------------------------------------

BUILDER = """#!/bin/sh
if [ "$1" = info ]; then exit {info}; fi
for last; do :; done
cp -r "$last" "{out}"
echo "building: $*"
exit {build}
"""


def builder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, info: int = 0, status: int = 0
) -> None:
    """Put a builder that does as told first on the path."""
    path = folder.parent / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(BUILDER.format(info=info, build=status, out=folder.parent / "built"))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")


def test_it_builds_with_the_first_builder_that_works(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    builder(folder, monkeypatch, "docker", info=1)
    builder(folder, monkeypatch, "podman")
    assert cli.run(["build", "hello", "-o", "json", "--", "--no-cache"]) == 0
    said = capfd.readouterr()
    (document,) = json.loads(said.out)
    assert document["function"] == "default/hello"
    assert document["image"].startswith("localhost/hello:")
    assert f"Building {document['image']} by podman" in said.err
    assert "building: build --build-arg BASE=docker.io/library/python:3.13-slim" in said.err
    assert " --no-cache --tag" in said.err
    assert (folder.parent / "built" / "app" / "main.py").read_text() == APP


def test_an_image_is_pushed_once_it_is_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    builder(folder, monkeypatch, "docker")
    path = folder.parent / "bin" / "docker"
    pushing = '#!/bin/sh\n[ "$1" = push ] && { echo "pushing: $*"; exit 0; }\n'
    path.write_text(path.read_text().replace("#!/bin/sh\n", pushing, 1))
    assert cli.run(["build", "hello", "--tag", "hello:1", "--push"]) == 0
    assert "pushing: push hello:1" in capfd.readouterr().err
    path.write_text(path.read_text().replace("exit 0; }", "exit 4; }", 1))
    assert cli.run(["build", "hello", "--tag", "hello:1", "--push"]) == 1
    assert "docker could not push hello:1" in capfd.readouterr().err
    assert cli.run(["build", "hello", "--push", "--write-context", "x"]) == 2


def test_a_build_that_fails_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    builder(folder, monkeypatch, "docker", status=3)
    assert cli.run(["build", "hello", "--tag", "hello:1"]) == 1
    expected = "Error: docker could not build hello:1; what it said above says why"
    assert capfd.readouterr().err.splitlines()[-1] == expected


def test_no_builder_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    assert cli.run(["build", "hello"]) == 1
    assert "no builder works here, one of docker, podman, buildah was expected" in capsys.readouterr().err


def test_a_context_for_any_other_builder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["build", "hello", "--write-context", "out"]) == 0
    assert Path("out/hello/app/main.py").read_text() == APP
    assert capsys.readouterr().out == "Wrote out/hello.\n"
    assert cli.run(["build", "hello", "--write-context", "out"]) == 1
    assert "out exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tag", "Hello World"], "'Hello World' is no image reference"),
        (["--platform", "arm"], "'arm' is no platform"),
        (["--repository", "a b"], "'a b/name' is no image reference"),
    ],
)
def test_wrong_usage(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.run(["build", "hello", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_one_tag_is_not_for_many(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["build", str(ROOT / "functions" / "images"), "--tag", "x"]) == 2
    assert "--tag names one image" in capsys.readouterr().err


def test_one_function_of_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = str(ROOT / "functions" / "images")
    context_folder = tmp_path / "contexts"
    assert cli.run(["build", images, "--function", "split", "--write-context", str(context_folder)]) == 0
    assert [path.name for path in context_folder.iterdir()] == ["split"]
    assert cli.run(["build", images, "--function", "spilt", "--tag", "x"]) == 2
    assert "--function is 'spilt', one of those in" in capsys.readouterr().err


def test_a_wrong_declaration_is_told_as_ever(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "main.py").write_text("from torpor import function\n@function\ndef (:\n")
    assert cli.run(["build", "hello"]) == 2
    assert capsys.readouterr().err.startswith("Error: hello/main.py:3:")


def test_its_help_is_the_one_in_the_list() -> None:
    assert command.short_help == VERBS["build"]
