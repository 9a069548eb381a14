"""What a reload has to do."""

from hypothesis import given
from hypothesis import strategies as st

from torpor.local.plan import plan

_PRINTS = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("123"))


def test_new_and_changed_functions_are_applied_and_missing_ones_removed() -> None:
    steps = plan({"same": "1", "changed": "1", "gone": "1"}, {"same": "1", "changed": "2", "new": "1"})
    assert steps.apply == ("changed", "new")
    assert steps.remove == ("gone",)


@given(_PRINTS, _PRINTS)
def test_what_is_applied_and_removed_leads_to_what_is_wanted(
    running: dict[str, str], wanted: dict[str, str]
) -> None:
    steps = plan(running, wanted)
    after = {key: value for key, value in running.items() if key not in steps.remove}
    after.update({key: wanted[key] for key in steps.apply})
    assert after == wanted
    assert not set(steps.apply) & set(steps.remove)


@given(_PRINTS)
def test_nothing_is_done_when_nothing_has_changed(running: dict[str, str]) -> None:
    assert plan(running, running) == plan({}, {})
