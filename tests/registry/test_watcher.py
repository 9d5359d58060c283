"""What a reader that does not read costs. That it misses nothing is test_catalog_model.py's to say."""

from __future__ import annotations

from fairway.registry.instance import Address, Instance
from fairway.registry.watcher import Synced, Tell, Watcher

nothing: dict[str, Instance] = {}  # that is there now


def instance(id: str) -> Instance:
    return Instance(id, "classify", Address("127.0.0.1", 9001))


def test_what_came_and_went_while_it_did_not_read_is_forgotten() -> None:
    known = instance("known")
    watcher = Watcher(plain=False)
    watcher.greet([])
    watcher.take(nothing.get, 1)
    assert watcher.offer("known", None, known) == Tell("known", known)
    watcher.flowing = False
    for n in range(1000):
        passing = instance(f"A{n}")
        watcher.offer(passing.id, None, passing)
        watcher.offer(passing.id, passing, None)
    watcher.offer("known", known, None)
    watcher.flowing = True
    assert watcher.behind == 1
    assert watcher.take(nothing.get, 10) == [Tell("known", None)], "it knows of this one"


def test_a_row_of_the_dump_that_goes_before_it_is_told() -> None:
    one = instance("one")
    watcher = Watcher(plain=False)
    watcher.greet([one])
    watcher.flowing = False
    watcher.offer("one", one, None)
    watcher.flowing = True
    assert watcher.behind == 1
    assert watcher.take(nothing.get, 10) == [Synced()]
    assert watcher.behind == 0
