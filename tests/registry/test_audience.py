"""Who is told of what: against a model, a dict of readers and what they asked for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fairway.registry.audience import Audience

SERVICES = st.sampled_from(["a", "b", "c"])
WISHES = st.none() | st.frozensets(SERVICES)
STEPS = st.lists(st.tuples(st.integers(0, 4), st.just("gone") | WISHES), max_size=30)


@given(STEPS, st.sets(SERVICES, max_size=2))
def test_everybody_whom_it_concerns_once_and_nobody_else(steps: list[tuple[int, object]], changed: set[str]) -> None:
    audience, wishes = Audience[int](), dict[int, frozenset[str] | None]()
    for reader, wish in steps:
        if wish == "gone":
            audience.remove(reader)
            wishes.pop(reader, None)
        else:
            assert wish is None or isinstance(wish, frozenset)
            audience.add(reader, wish)
            wishes[reader] = wish
    told = list(audience.of(changed))
    assert len(told) == len(set(told))
    assert set(told) == {reader for reader, wish in wishes.items() if wish is None or wish & changed}
