"""Which versions are wanted, and what is done next: the policies, labels, failures, and what is never given up."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from fairway.worker.errors import ConfigurationError
from fairway.worker.versions import PAUSES, TABLE, Policy, Versions, VersionStatus, parse_labels


def served(found: Collection[int], policy: str = "latest", labels: str = "", now: float = 0.0) -> Versions:
    """A model whose versions all load."""
    versions = Versions("m", Policy.parse(policy), parse_labels(labels))
    versions.aspire(found)
    settle(versions, now)
    return versions


def settle(versions: Versions, now: float = 0.0, broken: Collection[int] = ()) -> list[str]:
    """Does what is to be done now, -> what that was."""
    done = []
    while True:
        if (number := versions.next_unload()) is not None:
            versions.retired(number)
            versions.unloaded(number)
            done.append(f"-{number}")
        elif (number := versions.next_load(now)) is not None:
            versions.begun(number)
            if number in broken:
                versions.failed(number, "broken", now)
                done.append(f"!{number}")
            else:
                versions.loaded(number)
                done.append(f"+{number}")
        else:
            return done


@pytest.mark.parametrize(
    ("text", "found", "selected"),
    [
        ("latest", [1, 2, 10], {10}),
        ("latest:1", [3], {3}),
        ("latest:2", [1, 2, 10], {2, 10}),
        ("latest:5", [1, 2], {1, 2}),
        ("all", [1, 2, 10], {1, 2, 10}),
        ("specific:2", [1, 2, 10], {2}),
        (" specific: 10, 1,7 ", [1, 2, 10], {1, 10}),
        ("latest", [], set()),
        ("all", [], set()),
    ],
)
def test_policies(text: str, found: list[int], selected: set[int]) -> None:
    assert Policy.parse(text).select(found) == selected
    assert Policy.parse(str(Policy.parse(text))) == Policy.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "newest",
        "latest:0",
        "latest:x",
        "latest:1,2",
        "all:1",
        "specific",
        "specific:",
        "specific:1,,2",
        "specific:-1",
    ],
)
def test_policies_that_are_none(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected latest, latest:N, all, or specific:N,N"):
        Policy.parse(text)


def test_labels_are_read() -> None:
    assert parse_labels("") == {}
    assert parse_labels(" stable=1, canary = 2 ,") == {"stable": 1, "canary": 2}


@pytest.mark.parametrize("text", ["stable", "stable=", "stable=x", "a-b=1", "=1", "ä=1", "a=1,a=2"])
def test_labels_that_are_none(text: str) -> None:
    with pytest.raises(ConfigurationError, match="label"):
        parse_labels(text)


def test_the_table_names_every_state_and_leads_out_of_each() -> None:
    assert {state for state, _ in TABLE} == {"START", "LOADING", "AVAILABLE", "UNLOADING", "END"} == set(TABLE.values())


def test_a_new_version_is_loaded_before_the_old_one_goes() -> None:
    versions = served([1])
    versions.aspire([1, 2])
    assert versions.next_unload() is None
    assert settle(versions) == ["+2", "-1"]
    assert versions.statuses() == [VersionStatus(2, "AVAILABLE"), VersionStatus(1, "END")]
    assert repr(versions) == "<Versions m [latest:1 | 1 END, 2 AVAILABLE]>"


def test_the_states_on_the_way() -> None:
    versions = Versions("m")
    versions.aspire([7])
    seen = [versions.statuses()[0].state]
    versions.begun(7)
    seen.append(versions.statuses()[0].state)
    versions.loaded(7)
    versions.aspire([7, 8])
    versions.begun(8)
    versions.loaded(8)
    seen.append(versions.statuses()[1].state)
    versions.retired(7)
    seen.append(versions.statuses()[1].state)
    versions.unloaded(7)
    seen.append(versions.statuses()[1].state)
    assert seen == ["START", "LOADING", "AVAILABLE", "UNLOADING", "END"]


def test_a_version_that_fails_is_named_and_the_old_one_stays() -> None:
    versions = served([1])
    versions.aspire([1, 2])
    assert settle(versions, broken=[2]) == ["!2"]
    assert versions.available == [1]
    assert versions.statuses()[0] == VersionStatus(2, "START", "UNKNOWN", "broken")


def test_what_fails_is_tried_again_with_pauses_and_then_no_more() -> None:
    versions = served([1])
    versions.aspire([1, 2])
    now, tries = 0.0, 0
    while settle(versions, now, broken=[2]):
        tries += 1
        assert settle(versions, now + 0.9, broken=[2]) == []
        if (due := versions.due()) is None:
            break
        assert due == now + PAUSES[tries - 1]
        now = due
    assert tries == len(PAUSES) + 1
    assert versions.statuses()[0] == VersionStatus(2, "END", "UNKNOWN", "broken")
    assert settle(versions, now + 1e6) == []
    assert versions.available == [1]


@pytest.mark.parametrize("given_up", [False, True])
def test_other_contents_are_tried_at_once(given_up: bool) -> None:
    versions, now = served([1]), 0.0
    versions.aspire([1, 2])
    for pause in (0.0, *PAUSES) if given_up else (0.0,):
        now += pause
        settle(versions, now, broken=[2])
    assert versions.statuses()[0].state == ("END" if given_up else "START")
    versions.changed(2)
    assert settle(versions, now) == ["+2", "-1"]
    assert versions.statuses()[0] == VersionStatus(2, "AVAILABLE")


def test_who_asks_for_it_gets_another_try_at_once() -> None:
    versions = served([1])
    versions.aspire([1, 2])
    settle(versions, broken=[2])
    versions.retry()
    assert settle(versions) == ["+2", "-1"]


def test_a_try_during_which_the_files_changed_counts_for_nothing() -> None:
    versions = served([1])
    versions.aspire([1, 2])
    versions.begun(2)
    versions.changed(2)
    versions.failed(2, "cut off", 5.0)
    assert settle(versions, 5.0) == ["+2", "-1"]


def test_what_changed_while_it_was_loaded_is_loaded_again() -> None:
    versions = Versions("m")
    versions.aspire([1])
    versions.begun(1)
    versions.changed(1)
    versions.loaded(1)
    assert versions.available == [1]
    assert settle(versions) == ["+1"]


def test_a_served_version_whose_files_change_is_served_on_and_replaced() -> None:
    versions = served([1])
    versions.changed(1)
    assert versions.next_load(0) == 1
    versions.begun(1)
    assert versions.available == [1]
    versions.loaded(1)
    assert versions.available == [1]
    assert settle(versions) == []


def test_a_served_version_whose_new_files_fail_is_served_on_as_it_was() -> None:
    versions = served([1])
    versions.changed(1)
    assert settle(versions, broken=[1]) == ["!1"]
    assert versions.statuses() == [VersionStatus(1, "AVAILABLE", "UNKNOWN", "broken")]
    assert settle(versions, 1e6) == []
    versions.retry()
    assert settle(versions) == ["+1"]
    assert versions.statuses() == [VersionStatus(1, "AVAILABLE")]


def test_a_version_is_not_unloaded_while_its_new_contents_are_loaded() -> None:
    versions = served([1, 2], "all")
    versions.changed(1)
    versions.begun(1)
    versions.aspire([2])
    assert versions.next_unload() is None
    versions.loaded(1)
    assert versions.next_unload() == 1


def test_going_back_is_removing_the_newer_one() -> None:
    versions = served([1, 2])
    versions.aspire([1])
    assert settle(versions) == ["+1", "-2"]


def test_a_folder_that_is_empty_all_at_once_ends_no_service() -> None:
    versions = served([1, 2], "all")
    versions.aspire([])
    assert settle(versions) == []
    assert versions.available == [1, 2]


def test_what_is_superseded_goes_only_when_all_that_is_wanted_is_served() -> None:
    versions = served([1, 2], "latest:2")
    versions.aspire([1, 2, 3])
    assert settle(versions, broken=[3]) == ["!3"]
    assert versions.available == [1, 2]
    assert settle(versions, PAUSES[0]) == ["+3", "-1"]


def test_what_was_removed_goes_as_soon_as_something_wanted_is_served() -> None:
    versions = served([1, 2], "all")
    versions.aspire([2, 3])
    assert settle(versions, broken=[3]) == ["-1", "!3"]


def test_the_latest_that_fails_at_the_start_is_stood_in_for() -> None:
    versions = Versions("m")
    versions.aspire([1, 2, 3])
    assert settle(versions, broken=[2, 3]) == ["!3", "!2", "+1"]
    assert versions.statuses()[0] == VersionStatus(3, "START", "UNKNOWN", "broken")
    assert settle(versions, PAUSES[0]) == ["+3", "-1"]


def test_who_asked_for_a_certain_version_gets_no_other() -> None:
    versions = Versions("m", Policy.parse("specific:3"))
    versions.aspire([1, 2, 3])
    assert settle(versions, broken=[3]) == ["!3"]


def test_who_stands_in_and_is_being_unloaded_is_not_loaded_before_that_is_done() -> None:
    versions = served([1])
    versions.aspire([1, 2])
    settle(versions, broken=[2])
    versions.withdraw()
    versions.retired(1)
    versions.restore()
    assert settle(versions, broken=[2]) == ["!2"]
    versions.unloaded(1)
    assert settle(versions) == ["+1"]


def test_what_was_wrong_with_new_contents_is_forgotten_with_the_version() -> None:
    versions = served([1])
    versions.changed(1)
    settle(versions, broken=[1])
    versions.aspire([1, 2])
    assert settle(versions) == ["+2", "-1"]
    assert versions.statuses()[1] == VersionStatus(1, "END")


def test_a_label_keeps_its_version() -> None:
    versions = served([1], labels="stable=1")
    versions.aspire([1, 2])
    assert settle(versions) == ["+2"]
    assert (versions.available, versions.labels) == ([1, 2], {"stable": 1})


def test_a_label_moves_when_its_target_is_served() -> None:
    versions = served([1, 2], "specific:1", "stable=1")
    versions.configure(Policy.parse("specific:2"), {"stable": 2})
    assert versions.labels == {"stable": 1}
    assert settle(versions, broken=[2]) == ["!2"]
    assert (versions.available, versions.labels) == ([1], {"stable": 1})
    assert settle(versions, PAUSES[0]) == ["+2", "-1"]
    assert versions.labels == {"stable": 2}


def test_a_label_to_what_is_not_there_stays_where_it_is() -> None:
    versions = served([1, 2], "specific:1,2", "stable=1")
    versions.configure(Policy.parse("specific:2"), {"stable": 9})
    versions.aspire([2])
    assert settle(versions) == []
    assert (versions.available, versions.labels) == ([1, 2], {"stable": 1})


def test_a_label_that_is_taken_away_holds_nothing() -> None:
    versions = served([1, 2], labels="old=1")
    versions.configure(Policy(), {})
    assert settle(versions) == ["-1"]
    assert versions.labels == {}


def test_a_label_for_what_was_never_served_is_none() -> None:
    assert served([1], labels="canary=2").labels == {}


def test_what_is_withdrawn_goes_and_comes_back() -> None:
    versions = served([1, 2], "all", "stable=1")
    versions.withdraw()
    assert settle(versions) == ["-1", "-2"]
    assert versions.labels == {}
    versions.aspire([1, 2, 3])
    assert settle(versions) == []
    versions.restore()
    assert settle(versions) == ["+3", "+2", "+1"]


def test_what_comes_back_while_it_is_being_unloaded_is_loaded_after_that() -> None:
    versions = served([1])
    versions.withdraw()
    versions.retired(1)
    assert not versions.returning
    versions.restore()
    assert versions.returning
    assert versions.next_load(0) is None
    versions.unloaded(1)
    assert not versions.returning
    assert settle(versions) == ["+1"]


def test_what_was_begun_in_vain_is_unloaded() -> None:
    versions = Versions("m")
    versions.aspire([1])
    versions.begun(1)
    versions.withdraw()
    versions.loaded(1)
    assert settle(versions) == ["-1"]


def test_few_that_are_gone_are_told_about() -> None:
    versions = Versions("m")
    for number in range(1, 100):
        versions.aspire([number])
        settle(versions)
    assert len(versions.statuses()) < 15
    assert versions.statuses()[0] == VersionStatus(99, "AVAILABLE")
