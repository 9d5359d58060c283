from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from fairway.registry.hearing import DEAF_SECONDS, LOOK_SECONDS, Hearing

ROUNDING = 1e-9  # of a clock that is moved on by tenths


def listen(hearing: Hearing[str], begin: float, end: float) -> list[tuple[str, float, str]]:
    """What happens while `due` is called as it is to be."""
    told: list[tuple[str, float, str]] = []
    now = begin
    while now <= end:
        ask, lost = hearing.due(now)
        told += [("ask", now, thing) for thing in ask] + [("lost", now, thing) for thing in lost]
        now += LOOK_SECONDS
    return told


def test_who_is_silent_is_asked_twice_and_then_lost() -> None:
    hearing: Hearing[str] = Hearing(7.0, 10.0)
    hearing.heard("a", 0.0)
    assert listen(hearing, 0.0, 20.0) == [("ask", 7.0, "a"), ("ask", 8.5, "a"), ("lost", 10.0, "a")]
    assert "a" not in hearing
    assert not len(hearing)


def test_an_answer_begins_it_all_anew() -> None:
    hearing: Hearing[str] = Hearing(7.0, 10.0)
    hearing.heard("a", 0.0)
    assert listen(hearing, 0.0, 9.5)[-1] == ("ask", 8.5, "a")
    hearing.heard("a", 9.6)
    assert listen(hearing, 10.0, 30.0)[-1] == ("lost", 20.0, "a")


def test_doubt_shortens_the_wait_but_an_answer_still_counts() -> None:
    hearing: Hearing[str] = Hearing(7.0, 10.0)
    for name in ("dead", "alive", "unasked"):
        hearing.heard(name, 0.0)
    hearing.heard("unasked", 3.0)
    listen(hearing, 0.0, 7.0)
    for name in ("dead", "alive", "unasked", "stranger"):
        hearing.doubt(name, 7.1)
    hearing.heard("alive", 7.2)
    told = listen(hearing, 7.5, 9.5)
    assert told == [("lost", 8.5, "dead")]


def test_who_did_not_listen_loses_nobody() -> None:
    hearing: Hearing[str] = Hearing(7.0, 10.0)
    hearing.heard("a", 0.0)
    assert listen(hearing, 0.0, 8.0) == [("ask", 7.0, "a")]
    # Stopped for an hour: it was silent for 8 s as far as we know. What came meanwhile is still to be read.
    assert hearing.due(3600.0) == (["a"], [])
    assert listen(hearing, 3600.5, 3615.0) == [("ask", 3601.0, "a"), ("lost", 3602.0, "a")]


@example([("a", 10.375)], 0.1)
@example([("a", 7.9375)], 0.1)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 60.0)), max_size=30), st.floats(0.1, DEAF_SECONDS))
def test_nobody_is_lost_early_and_nobody_is_kept(words: list[tuple[str, float]], step: float) -> None:
    hearing: Hearing[str] = Hearing(7.0, 10.0)
    heard: dict[str, float] = {}
    coming = sorted(words, key=lambda word: word[1])
    now = 0.0
    while now < 90.0:
        while coming and coming[0][1] <= now:
            name, _ = coming.pop(0)
            hearing.heard(name, now)
            heard[name] = now
        ask, lost = hearing.due(now)
        for name in ask:
            assert now - heard[name] >= 7.0 - ROUNDING
        for name in lost:
            assert now - heard.pop(name) >= 10.0 - ROUNDING
        for name, when in heard.items():
            assert name in hearing
            assert now - when <= 10.0 + 2 * max(step, LOOK_SECONDS)
        now += step
    assert not heard
