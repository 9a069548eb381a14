# ruff: noqa: E501 - a fault is one line, and shown here as it is printed
"""Loading whole trees: what is found, what belongs together, and that nothing whatever makes it fail otherwise."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torpor.errors import DeclarationError
from torpor.spec.load import Declared, inspect, load

REPOSITORY = Path(__file__).parents[3]
HANDLER = "from torpor import function\n\n\n@function\ndef handle(data: dict) -> None: ...\n"
APP = "from fastapi import FastAPI\n\napp = FastAPI()\n"


def function(name: str, spec: str = "") -> str:
    head = f"apiVersion: torpor.dev/v1alpha1\nkind: Function\nmetadata: {{name: {name}}}\n"
    return f"{head}spec: {spec}\n" if spec else head


def trigger(name: str, subscriber: str) -> str:
    head = f"apiVersion: torpor.dev/v1alpha1\nkind: Trigger\nmetadata: {{name: {name}}}\n"
    return f"{head}spec:\n  subscriber: {{function: {subscriber}}}\n"


def sinking(name: str, subscriber: str, sink: str, broker: str = "default") -> str:
    return f"{trigger(name, subscriber)}  delivery: {{deadLetterSink: {{{sink}}}}}\n  broker: {broker}\n"


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def faults(folder: Path) -> list[str]:
    _, found = inspect([folder])
    return [str(fault).removeprefix(f"{folder}/").replace(f"{folder}/", "") for fault in found]


def names(declared: Declared) -> list[str]:
    return sorted([*declared.functions, *(f"{key}!" for key in declared.triggers)])


# --- what is found ---


def test_the_examples_are_right() -> None:
    declared = load([REPOSITORY / "functions"])
    assert {
        "default/greeter",
        "default/split",
        "default/resize",
        "default/stitch",
    } <= declared.functions.keys()


@pytest.mark.parametrize(
    "code",
    [
        HANDLER,
        APP,
        "from torpor import function as f\n@f(emits='a')\nasync def handle(data): ...\n",
        "import torpor\n@torpor.function\ndef handle(data): ...\n",
        "import torpor as t\n@t.function(emits='a')\ndef handle(data): ...\n",
        "import fastapi\napp: fastapi.FastAPI = fastapi.FastAPI(title='x')\n",
        "# torpor\nasync def app(scope, receive, send): ...\n",
        "from torpor import function\nfrom fastapi import FastAPI\napp = FastAPI()\n@function\ndef f(data): ...\n",
    ],
)
def test_a_folder_with_one_function_needs_no_yaml(tmp_path: Path, code: str) -> None:
    write(tmp_path, {"My_Resizer 2/main.py": code})
    declared = load([tmp_path])
    resizer = declared.functions["default/my-resizer-2"]
    assert resizer.spec.code.path == tmp_path / "My_Resizer 2"
    assert resizer.spec.code.handler == "main"
    assert str(declared.origin(resizer)).startswith(f"{tmp_path}/My_Resizer 2/main.py:")


@pytest.mark.parametrize(
    "code",
    [
        "print('torpor')\n",
        "import typer\n# not of torpor\napp = typer.Typer()\n",
        "from elsewhere import function\n# torpor\n@function\ndef handle(data): ...\n",
        "def broken(:\n",
        "",
    ],
)
def test_a_folder_with_other_code_is_no_function(tmp_path: Path, code: str) -> None:
    write(tmp_path, {"tool/main.py": code, "real/main.py": HANDLER})
    assert names(load([tmp_path])) == ["default/real"]


def test_other_yaml_in_the_tree_is_left_alone(tmp_path: Path) -> None:
    foreign = "apiVersion: v1\nkind: ConfigMap\n"
    write(
        tmp_path,
        {
            "a/main.py": HANDLER,
            "a/deployment.yaml": foreign,
            "a/broken.yml": "a: {{ .Values.x }\n",
            "a/mixed.yaml": f"{foreign}---\n{trigger('t', 'a')}---\njust text\n",
            "a/latin.yaml": "",
            ".git/function.yaml": "rubbish: [",
            "node_modules/x/function.yaml": "rubbish: [",
            "a/.hidden.yaml": "torpor.dev/: [",
        },
    )
    (tmp_path / "a/latin.yaml").write_bytes(b"\xff")
    assert names(load([tmp_path])) == ["default/a", "default/t!"]


def test_yaml_says_what_differs_and_the_rest_stays_by_default(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "f/main.py": HANDLER,
            "f/function.yaml": function("renamed", "{timeoutSeconds: 5}"),
            "f/lib/main.py": APP,
        },
    )
    declared = load([tmp_path])
    assert names(declared) == ["default/renamed"]
    assert declared.functions["default/renamed"].spec.timeout_seconds == 5


def test_a_trigger_alone_leaves_the_folder_its_function(tmp_path: Path) -> None:
    write(tmp_path, {"f/main.py": HANDLER, "f/function.yaml": trigger("t", "f")})
    assert names(load([tmp_path])) == ["default/f", "default/t!"]


def test_code_may_be_elsewhere_than_its_declaration(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "all.yaml": function("one", "{source: {path: code/one}}"),
            "code/one/main.py": HANDLER,
            "code/one/requirements.txt": "pillow\n",
            "code/two/main.py": HANDLER,
            "code/two/requirements.txt": "# nothing\n\n",
        },
    )
    declared = load([tmp_path])
    assert names(declared) == ["default/one", "default/two"]
    one, two = declared.functions["default/one"].spec.code, declared.functions["default/two"].spec.code
    assert (one.path, one.requirements) == (tmp_path / "code/one", tmp_path / "code/one/requirements.txt")
    assert (two.path, two.requirements) == (tmp_path / "code/two", None)


def test_the_same_file_by_two_paths_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, {"f/main.py": HANDLER, "f/function.yaml": function("f"), "g/main.py": HANDLER})
    paths = [tmp_path, tmp_path / "f", tmp_path / "f/../f/function.yaml", tmp_path / "g"]
    assert names(load(paths)) == ["default/f", "default/g"]


def test_a_handler_may_be_in_a_package_or_come_with_the_requirements(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "f/function.yaml": function("f", '{source: {handler: "pkg.sub:handle"}}'),
            "f/pkg/sub/__init__.py": "",
            "g/function.yaml": function("g", '{source: {handler: "installed:handle"}}'),
            "g/requirements.txt": "installed\n",
        },
    )
    assert names(load([tmp_path])) == ["default/f", "default/g"]


def test_an_image_needs_no_code_and_takes_none_that_lies_beside_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "f/function.yaml": function("f", "{image: 'registry.example/f:1'}"),
            "f/main.py": HANDLER,
            "g/function.yaml": function("g", "{image: 'registry.example/g:1', source: {path: .}}"),
            "g/main.py": HANDLER,
        },
    )
    declared = load([tmp_path])
    assert names(declared) == ["default/f", "default/g"]
    assert declared.functions["default/f"].spec.image_only
    assert declared.functions["default/g"].spec.code.path == tmp_path / "g"


def test_what_only_a_cluster_can_run_is_a_fault_on_this_machine(tmp_path: Path) -> None:
    env = "[{name: A, valueFrom: {secretKeyRef: {name: a, key: b}}}]"
    optional = "[{name: A, valueFrom: {configMapKeyRef: {name: a, key: b, optional: true}}}]"
    write(
        tmp_path,
        {
            "f.yaml": function("f", "{image: 'registry.example/f:1'}"),
            "g.yaml": function("g", f"{{env: {env}}}"),
            "h.yaml": function("h", f"{{env: {optional}}}"),
            "main.py": "",
        },
    )
    assert len(load([tmp_path]).functions) == 3
    with pytest.raises(DeclarationError) as caught:
        load([tmp_path], local=True)
    assert [fault.removeprefix(f"{tmp_path}/") for fault in caught.value.faults] == [
        "f.yaml:4: spec.image: is an image, which only a cluster runs; spec.source, its code, was expected beside it",
        "g.yaml:4: spec.env[0].valueFrom: is kept on a cluster, a value was expected, or a reference that is optional",
    ]


# --- what is wrong between files ---


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"a.yaml": function("f"), "b.yaml": function("f"), "main.py": ""},
            ["b.yaml:3: metadata.name: Function 'default/f' is declared already at a.yaml:1, another name was expected"],
        ),
        (
            {"x/f/main.py": HANDLER, "y/f/main.py": HANDLER},
            ["y/f/main.py:5: metadata.name: Function 'default/f' is declared already at x/f/main.py:5, another name was expected"],
        ),
        (
            {"resize/main.py": HANDLER, "t.yaml": trigger("t", "resiez")},
            ["t.yaml:5: spec.subscriber.function: there is no function 'resiez' in namespace 'default', did you mean 'resize'?"],
        ),
        (
            {"resize/main.py": HANDLER, "t.yaml": trigger("t", "zip")},
            ["t.yaml:5: spec.subscriber.function: there is no function 'zip' in namespace 'default', the name of a declared function was expected"],
        ),
        (
            {"resize/main.py": HANDLER, "t.yaml": sinking("t", "resize", "function: resiez")},
            ["t.yaml:6: spec.delivery.deadLetterSink.function: there is no function 'resiez' in namespace 'default', did you mean 'resize'?"],
        ),
        (
            {"resize/main.py": HANDLER, "t.yaml": sinking("t", "resize", "broker: morgues"), "u.yaml": sinking("u", "resize", "broker: default", "morgue")},
            ["t.yaml:6: spec.delivery.deadLetterSink.broker: there is no broker 'morgues' in namespace 'default', did you mean 'morgue'?"],
        ),
        (
            {"resize/main.py": HANDLER, "t.yaml": sinking("t", "resize", "broker: morgue")},
            ["t.yaml:6: spec.delivery.deadLetterSink.broker: there is no broker 'morgue' in namespace 'default', the name of another one that a trigger reads was expected"],
        ),
        (
            {"f.yaml": function("f", "{zone: x}"), "t.yaml": trigger("t", "f")},
            ["f.yaml:4: spec.zone: is not a field here, one of containerConcurrency, env, http, image, imagePullSecrets, resources, scaling, source, timeoutSeconds was expected"],
        ),
        (
            {"f.yaml": "# torpor.dev/\n[", "t.yaml": trigger("t", "f")},
            ["f.yaml:2: YAML: expected the node content, but found '<stream end>' while parsing a flow node, valid YAML was expected"],
        ),
        (
            {"f.yaml": function("f", "{http: {paths: [/a, /b/]}}"), "g.yaml": function("g", "{http: {hosts: [x.org], paths: [/a]}}"),
             "h.yaml": function("h", "{http: {paths: [/c, /b]}}"), "main.py": ""},
            ["h.yaml:4: spec.http.paths[1]: '/b' on any host leads to function 'default/f', declared at f.yaml:1; another was expected"],
        ),
        (
            {"f.yaml": function("f", "{http: {hosts: [x.org]}}"), "g.yaml": function("g", "{http: {hosts: [y.org, x.org], paths: [/]}}"), "main.py": ""},
            ["g.yaml:4: spec.http.paths[0]: '/' on x.org leads to function 'default/f', declared at f.yaml:1; another was expected"],
        ),
        (
            {"images/main.py": HANDLER + HANDLER.replace("handle", "other")},
            ["images/main.py:5: holds the functions handle, other, one was expected, or a function.yaml that declares each with its handler"],
        ),
        (
            {"___/main.py": HANDLER},
            ["___/main.py:5: the folder's name '___' gives the function no name, a function.yaml that does was expected"],
        ),
        (
            {"f/main.py": f"{HANDLER}def broken(:\n"},
            ["f/main.py:6: invalid syntax, valid Python was expected"],
        ),
        (
            {"f/main.py": "# torpor\n\x00"},
            ["f/main.py:1: source code string cannot contain null bytes, valid Python was expected"],
        ),
        (
            {"notes.txt": "nothing"},
            ["{folder}: declares nothing, a function.yaml, or a main.py with one @function or a FastAPI app was expected"],
        ),
    ],
)  # fmt: skip
def test_faults_between_files(tmp_path: Path, files: dict[str, str], expected: list[str]) -> None:
    write(tmp_path, files)
    found = [
        fault.replace("can't be parsed (", "").replace("), valid", ", valid") for fault in faults(tmp_path)
    ]
    assert found == [fault.replace("{folder}", str(tmp_path)) for fault in expected]


def test_a_file_alone_may_name_functions_of_elsewhere(tmp_path: Path) -> None:
    write(tmp_path, {"t.yaml": trigger("t", "elsewhere")})
    assert names(load([tmp_path / "t.yaml"], complete=False)) == ["default/t!"]
    with pytest.raises(DeclarationError, match="there is no function 'elsewhere'"):
        load([tmp_path / "t.yaml"])


def test_a_file_named_must_be_all_of_torpor(tmp_path: Path) -> None:
    write(tmp_path, {"t.yaml": "apiVersion: v1\nkind: ConfigMap\n"})
    with pytest.raises(DeclarationError) as caught:
        load([tmp_path / "t.yaml"])
    assert [fault.removeprefix(f"{tmp_path}/") for fault in caught.value.faults] == [
        "t.yaml:1: apiVersion: is 'v1', 'torpor.dev/v1alpha1' was expected",
        "t.yaml:2: kind: is 'ConfigMap', Function, Trigger or Schedule was expected",
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nowhere", "does not exist, a folder or a YAML file was expected"),
        ("main.py", "is neither a folder nor a YAML file, one of them was expected"),
        ("a\x00b", "does not exist, a folder or a YAML file was expected"),
        ("pipe.yaml", "is neither a folder nor a YAML file, one of them was expected"),
    ],
)
def test_paths_that_are_nothing_of_ours(tmp_path: Path, name: str, expected: str) -> None:
    write(tmp_path, {"main.py": HANDLER})
    os.mkfifo(tmp_path / "pipe.yaml")
    _, [fault] = inspect([tmp_path / name])
    assert fault.message == expected


def test_names_of_files_can_not_break_the_lines_of_faults(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/a\nb\xff\x1b"
    os.mkdir(folder)  # noqa: PTH102 - a Path can't be made of these bytes
    (Path(os.fsdecode(folder)) / "function.yaml").write_text("[")
    [fault] = faults(tmp_path)
    assert fault.startswith("a\\nb\\udcff\\x1b/function.yaml:1: YAML: ")


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    write(tmp_path, {"f.yaml": function("f", "{source: {path: loop}}")})
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "up").symlink_to(tmp_path)
    [fault] = faults(tmp_path)
    assert fault == "f.yaml:4: spec.source.path: there is no folder 'loop', one that exists was expected"


# --- whatever the bytes ---

_FRAGMENTS = st.sampled_from(
    [
        b"apiVersion: torpor.dev/v1alpha1\n", b"kind: Function\n", b"kind: Trigger\n", b"metadata: {name: f}\n", b"metadata:\n",
        b"  name: f\n", b"  namespace: n\n", b"spec:\n", b"spec: {}\n", b"  source: {path: ..}\n", b"  source: {path: 'a/b'}\n",
        b"  timeoutSeconds: 5\n", b"  scaling: {window: 5s, minScale: 3}\n", b"  http: {paths: [/a]}\n", b"  filters:\n",
        b"  - exact: {type: a}\n", b"  - not: {any: [{prefix: {type: b}}]}\n", b"  subscriber: {function: f}\n", b"---\n", b"...\n",
        b"&a ", b"*a ", b"!!str ", b"!x ", b"? ", b": ", b"- ", b"[", b"]", b"{", b"}", b"|\n", b"> \n", b"'", b'"', b"#", b"%YAML 1.1\n",
        b"%TAG ! tag:x,2000:\n", b"\t", b"\r", b"\n", b"\\u", b"\\x00", b"\xef\xbb\xbf", b"\xff\xfe", b"\x85", b"\xe2\x80\xa8", b"@", b"`",
        b"<<: ", b"0x", b"1e999", b".nan", b"~", b"null", b"\x00", b"\x1b", b"  join: {timeout: 1s}\n", b"  env: [{name: A, value: b}]\n",
    ]
)  # fmt: skip
_SOUP = st.lists(_FRAGMENTS | st.binary(max_size=4), max_size=30).map(b"".join)


def check(root: Path, name: str, content: bytes) -> None:
    """Load a tree with one file of ``content``: it gives declarations, or faults that each are one line."""
    path = root / name
    path.write_bytes(content)
    outcome = load_or_error(root)
    if isinstance(outcome, DeclarationError):
        assert outcome.faults
        for fault in outcome.faults:
            assert fault.isprintable(), fault
            assert fault.startswith(str(root)), fault
    else:
        for resource in [*outcome.functions.values(), *outcome.triggers.values()]:
            assert type(resource).model_validate_json(resource.model_dump_json()) == resource


def load_or_error(root: Path) -> Declared | DeclarationError:
    try:
        return load([root])
    except DeclarationError as error:
        return error


@settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=_SOUP
    | st.binary(max_size=300)
    | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_any_bytes_as_yaml_give_declarations_or_faults(tmp_path: Path, content: bytes) -> None:  # fmt: skip
    check(tmp_path, "function.yaml", content)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), position=st.integers(0, len(HANDLER)))
def test_any_bytes_as_code_give_declarations_or_faults(tmp_path: Path, content: bytes, position: int) -> None:
    code = HANDLER.encode()
    check(tmp_path, "main.py", code[:position] + content + code[position:])


_NAMES = st.sampled_from(
    ["apiVersion", "kind", "metadata", "name", "spec", "source", "path", "handler", "env", "scaling", "window", "target",
     "http", "paths", "hosts", "filters", "exact", "not", "any", "subscriber", "function", "join", "delivery", "timeout", "type"]
)  # fmt: skip
_SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.sampled_from(["f", "5s", "/a", "main:x", "."])
)  # fmt: skip
_TREES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES | st.text(max_size=5), inner, max_size=5)
)  # fmt: skip


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["Function", "Trigger"]), metadata=_TREES, spec=_TREES)
def test_any_value_in_any_field_gives_declarations_or_faults(
    tmp_path: Path, kind: str, metadata: object, spec: object
) -> None:
    # JSON with quoted texts is YAML; what Python writes beside it, NaN and Infinity, are texts there.
    document = {"apiVersion": "torpor.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
    check(tmp_path, "function.yaml", json.dumps(document).encode())
