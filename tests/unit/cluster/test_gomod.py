"""Modules around programs that are built from the Go module proxy alone."""

from __future__ import annotations

from tests.cluster.gomod import PROGRAMS, Program, linker_flags, wrapper

GO_MOD = {
    "Go": "1.26.0",
    "Godebug": [{"Key": "default", "Value": "go1.26"}],
    "Replace": [
        {"Old": {"Path": "k8s.io/api"}, "New": {"Path": "./staging/src/k8s.io/api"}},
        {"Old": {"Path": "a.b/c", "Version": "v1.0.0"}, "New": {"Path": "d.e/f", "Version": "v2.0.0"}},
        {"Old": {"Path": "x.y/z"}, "New": {"Path": "../elsewhere"}},
    ],
}


def test_replacements_hold_again_where_they_can() -> None:
    program = Program("thing", "k8s.io/kubernetes", "v1.37.2", "k8s.io/kubernetes/cmd/thing")
    assert wrapper(program, GO_MOD).splitlines() == [
        "module build",
        "go 1.26.0",
        "godebug default=go1.26",
        "require k8s.io/kubernetes v1.37.2",
        "replace k8s.io/api => k8s.io/api v0.37.2",
        "replace a.b/c v1.0.0 => d.e/f v2.0.0",
    ]


def test_a_module_that_replaces_nothing() -> None:
    assert wrapper(Program("x", "a.b/c", "v1.0.0", "a.b/c"), {"Go": "1.25"}).splitlines() == [
        "module build",
        "go 1.25",
        "require a.b/c v1.0.0",
    ]


def test_programs_say_their_version() -> None:
    flags = linker_flags(PROGRAMS["kube-apiserver"])
    assert "-X k8s.io/component-base/version.gitVersion=v1.37.2" in flags
    assert "-X k8s.io/component-base/version.gitMinor=37" in flags
