"""Deadlines against the plainest bookkeeping."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fairway.registry.deadlines import Deadlines


@given(st.lists(st.tuples(st.sampled_from("pdt"), st.integers(0, 3), st.integers(0, 20)), max_size=60))
def test_deadlines_are_those_of_a_plain_dict(steps: list[tuple[str, int, int]]) -> None:
    deadlines: Deadlines[int] = Deadlines()
    model: dict[int, float] = {}
    for step, thing, when in steps:
        if step == "p":
            deadlines.put(thing, when)
            model[thing] = when
        elif step == "d":
            deadlines.drop(thing)
            model.pop(thing, None)
        else:
            taken = deadlines.take(when)
            first = min(model.values(), default=None)
            if first is None or first > when:
                assert taken is None
            else:
                assert taken is not None
                assert model.pop(taken) == first
        assert deadlines.next() == min(model.values(), default=None)
        assert len(deadlines) == len(model)
        assert len(deadlines._heap) <= 4 * 21
