"""Who comes next: nothing is lost, nothing runs twice, and each in its turn."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fairway.worker.batcher import Batcher, Work
from fairway.worker.lane import DECODING, OVER, READY, Batching, Job, Lane

TOGETHER = Batching(8, merge=True)


def batcher(*lanes: Lane) -> Batcher:
    made = Batcher()
    for lane in lanes:
        made.add(lane)
    return made


def ran(work: Work | None) -> list[int]:
    """The numbers of the jobs that run."""
    assert work is not None
    assert work.run
    return [job.number for job in work.jobs]


def test_what_is_queued_when_the_model_is_free_runs_together() -> None:
    lane = Lane("m/1")
    made = batcher(lane)
    assert repr(made) == "<Batcher [1 models | 0 to decode, 0 decoding, 0 ready, 0 running]>"
    assert made.take(0) is None
    assert made.until() == inf
    made.put(Job(lane, TOGETHER, 1), 0)
    first = made.take(0)
    assert first is not None
    assert ran(first) == [1]  # nobody waits for company that is not there
    for _ in range(3):
        made.put(Job(lane, TOGETHER, 2), 1)
    assert made.take(1) is None  # the model is busy
    assert repr(lane) == "<Lane m/1 [0 to decode, 0 decoding, 3 ready, 1 of 1 running]>"
    made.done(first)
    second = made.take(2)
    assert second is not None
    assert ran(second) == [2, 3, 4]
    assert (second.items, second.size) == (6, 6)
    assert repr(second) == "<Work m/1 [run 6 of 6 wide: 2, 3, 4]>"
    made.done(second)
    assert made.jobs == 0


@pytest.mark.parametrize(("batching", "threads"), [(Batching(1), 2), (TOGETHER, 1), (Batching(2, merge=True), 2)])
def test_as_many_threads_are_called_as_there_is_work_for(batching: Batching, threads: int) -> None:
    lane = Lane("m/1", streams=2)
    made = batcher(lane)
    for _ in range(5):
        made.put(Job(lane, batching, 1), 0)
    assert made.due(0) == threads
    assert made.take(0) is not None
    assert made.due(0) == threads - 1


def test_the_limit_counts_items_and_nothing_is_overtaken() -> None:
    lane = Lane("m/1", streams=3)
    made = batcher(lane)
    for items in (3, 4, 2, 1):
        made.put(Job(lane, TOGETHER, items), 0)
    assert ran(made.take(0)) == [1, 2]  # 7 items; the third does not fit, and the fourth does not pass it
    assert ran(made.take(0)) == [3, 4]


@pytest.mark.parametrize(("items", "parts"), [(1, [1]), (8, [8]), (9, [8, 1]), (16, [8, 8]), (20, [8, 8, 4])])
def test_what_is_too_large_is_cut(items: int, parts: list[int]) -> None:
    assert TOGETHER.parts(items) == parts
    assert Batching(0).parts(items) == [items]


@pytest.mark.parametrize(("items", "size"), [(1, 1), (2, 8), (8, 8), (9, 32), (32, 32), (33, 33)])
def test_sizes_are_padded_up_to(items: int, size: int) -> None:
    assert Batching(32, True, 0, (1, 8, 32)).padded(items) == size
    assert Batching(32, True).padded(items) == items


def test_only_what_is_alike_shares_a_call() -> None:
    lane = Lane("m/1", streams=3)
    made = batcher(lane)
    for key in ("a", "b", "a", "b"):
        made.put(Job(lane, TOGETHER, 1, key=key), 0)
    assert ran(made.take(0)) == [1, 3]
    assert ran(made.take(0)) == [2, 4]


def test_the_lower_number_goes_first_and_takes_the_rest_along() -> None:
    lane = Lane("m/1")
    made = batcher(lane)
    for priority in (0, 5, -1, 0):
        made.put(Job(lane, Batching(3, merge=True), 1, priority=priority), 0)
    work = made.take(0)
    assert ran(work) == [3, 1, 4]
    assert work is not None
    made.done(work)
    assert ran(made.take(0)) == [2]


def test_who_waits_for_company_waits_no_longer_than_told() -> None:
    lane = Lane("m/1")
    made = batcher(lane)
    patient = Batching(3, merge=True, wait=2.0)
    made.put(Job(lane, patient, 1), 10)
    assert made.take(11) is None
    assert made.due(11) == 0
    assert made.until() == 12
    made.put(Job(lane, patient, 1), 11)
    work = made.take(12)
    assert ran(work) == [1, 2]
    assert work is not None
    made.put(Job(lane, patient, 1), 12)
    assert made.until() == inf  # while the model is busy time changes nothing
    made.done(work)
    made.put(Job(lane, patient, 2), 13)
    full = made.take(13)
    assert ran(full) == [3, 4]  # there is nothing to wait for
    assert full is not None
    made.done(full)
    for items, now in ((2, 20.0), (2, 21.0)):
        made.put(Job(lane, patient, items), now)
    full = made.take(21)
    assert ran(full) == [5]
    assert full is not None
    made.done(full)
    assert made.until() == 23  # of the one that stayed, since it came


def test_decoded_ones_wait_for_those_that_are_being_decoded_but_not_long() -> None:
    """Both cores decode meanwhile; a call for the first of eight alone would leave the other seven to wait for it."""
    lane = Lane("m/1", gather=0.5)
    made = batcher(lane)
    jobs = [Job(lane, TOGETHER, 1, encoded=True) for _ in range(3)]
    for job in jobs:
        made.put(job, 0)
    assert made.due(0) == 3
    decoding = [made.take(0) for _ in range(3)]
    assert repr(decoding[0]) == "<Work m/1 [decode: 1]>"
    assert repr(made) == "<Batcher [1 models | 0 to decode, 3 decoding, 0 ready, 0 running]>"
    made.decoded(jobs[1], "k", 1)
    assert made.take(1.2) is None
    assert made.until() == 1.5
    made.decoded(jobs[0], "k", 1.3)
    work = made.take(1.5)
    assert ran(work) == [1, 2]  # by when they came, not by when they were decoded
    assert work is not None
    made.done(work)
    made.decoded(jobs[2], "k", 1.6)
    assert ran(made.take(1.6)) == [3]


def test_in_a_fused_lane_a_thread_takes_one_job_and_does_all_of_it() -> None:
    lane = Lane("m/1", streams=2, fused=True)
    made = batcher(lane)
    for _ in range(3):
        made.put(Job(lane, Batching(1), 1, encoded=True), 0)
    assert made.due(0) == 2
    first, second = made.take(0), made.take(0)
    assert (ran(first), ran(second)) == ([1], [2])
    assert made.take(0) is None
    assert first is not None
    assert not first.wide
    made.done(first)
    assert ran(made.take(0)) == [3]


def test_a_call_that_is_alone_may_use_all_cores() -> None:
    lane, narrow = Lane("m/1", streams=2, fused=True), Lane("n/1", widens=False)
    made = batcher(lane, narrow)
    made.put(Job(lane, Batching(1), 1), 0)
    alone = made.take(0)
    assert alone is not None
    assert alone.wide
    made.put(Job(lane, Batching(1), 1), 0)
    beside = made.take(0)
    assert beside is not None
    assert not beside.wide
    made.done(alone)
    made.done(beside)
    made.put(Job(narrow, Batching(1), 1), 0)
    told = made.take(0)
    assert told is not None
    assert not told.wide


def test_models_that_have_work_take_turns() -> None:
    lanes = [Lane(name, streams=99, fused=True) for name in "abc"]
    made = batcher(*lanes)
    for lane, many in zip(lanes, (20, 2, 1), strict=True):
        for _ in range(many):
            made.put(Job(lane, Batching(1), 1), 0)
    taken = [made.take(0) for _ in range(8)]
    assert "".join(work.lane.name for work in taken if work) == "abcabaaa"


def test_a_late_one_is_not_run() -> None:
    lane = Lane("m/1")
    made = batcher(lane)
    late, other = Job(lane, TOGETHER, 1, deadline=5), Job(lane, TOGETHER, 1, deadline=9)
    made.put(late, 0)
    made.put(other, 0)
    assert ran(made.take(5)) == [2]
    assert made.expired == [late]
    assert late.stage == OVER


def test_what_nobody_wants_any_more_is_not_run() -> None:
    lane = Lane("m/1")
    made = batcher(lane)
    jobs = [Job(lane, TOGETHER, 1, encoded=encoded) for encoded in (True, True, False)]
    for job in jobs:
        made.put(job, 0)
    decoding = made.take(-1)  # time does not matter here
    assert decoding is not None
    assert jobs[2].stage == READY
    assert all(made.drop(job) for job in jobs)
    assert not any(made.drop(job) for job in jobs)
    assert jobs[0].stage == OVER
    made.decoded(jobs[0], "k", 1)
    assert made.take(1) is None
    assert (made.jobs, lane.waiting, lane.decoding, lane.groups) == (0, 0, 0, {})
    early = Job(lane, TOGETHER, 1)
    assert made.drop(early)  # before it came here
    made.put(early, 2)
    assert made.take(2) is None
    running = Job(lane, TOGETHER, 1)
    made.put(running, 2)
    assert ran(made.take(2)) == [4]
    assert not made.drop(running)  # too late


def test_a_model_that_goes_leaves_nothing_behind() -> None:
    lane, other = Lane("m/1"), Lane("m/2")
    made = batcher(lane, other)
    for one in (lane, other):
        made.put(Job(one, TOGETHER, 1), 0)
    assert [job.number for job in made.remove(lane)] == [1]
    assert ran(made.take(0)) == [2]
    assert repr(made) == "<Batcher [1 models | 0 to decode, 0 decoding, 0 ready, 1 running]>"


def test_one_whose_time_ends_while_it_is_decoded_is_not_run() -> None:
    lane = Lane("m/1")
    made = batcher(lane)
    job, other = Job(lane, TOGETHER, 1, encoded=True, deadline=5), Job(lane, TOGETHER, 1, deadline=6)
    made.put(job, 0)
    made.put(other, 0)
    busy = made.take(1)
    assert made.take(1) is not None
    assert made.take(7) is None
    made.decoded(job, "k", 8)
    assert busy is not None
    made.done(busy)
    assert made.take(8) is None
    assert made.expired == [job]


class Anything(RuleBasedStateMachine):
    """Whatever happens, in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.batcher = Batcher()
        self.jobs: list[Job] = []
        self.ended: dict[Job, str] = {}  # how
        self.works: list[Work] = []
        self.begun: list[Job] = []  # in the order in which they ran
        self.passed: dict[Lane, int] = {}  # works of others since a lane had something to do
        self.batchings: dict[Lane, Batching] = {}

    @initialize(data=st.data())
    def lanes(self, data: st.DataObject) -> None:
        for name in "abc":
            most, merge = data.draw(st.integers(1, 6)), data.draw(st.booleans())
            sizes = data.draw(st.sampled_from([(), (most,), tuple(sorted({1, most}))]))
            wait = data.draw(st.sampled_from([0.0, 0.0, 1.5]))
            lane = Lane(
                name,
                data.draw(st.integers(1, 3)),
                fused=not merge and data.draw(st.booleans()),
                gather=data.draw(st.sampled_from([0.0, 1.0])),
            )
            self.batchings[lane] = Batching(most, merge, wait, sizes)
            self.batcher.add(lane)

    @rule(data=st.data(), encoded=st.booleans(), priority=st.integers(-1, 1), patience=st.sampled_from([inf, 3.0, 0.5]))
    def put(self, data: st.DataObject, encoded: bool, priority: int, patience: float) -> None:
        lane = data.draw(st.sampled_from(list(self.batchings)))
        batching = self.batchings[lane]
        job = Job(
            lane,
            batching,
            1 if encoded else data.draw(st.integers(1, batching.most)),
            key=None if encoded else data.draw(st.sampled_from("xy")),
            encoded=encoded,
            deadline=self.now + patience,
            priority=priority,
        )
        self.jobs.append(job)
        self.batcher.put(job, self.now)

    @rule()
    def take(self) -> None:
        idle = [lane for lane in self.batchings if lane.raw and lane.running < lane.streams]
        work = self.batcher.take(self.now)
        for job in self.batcher.expired:
            assert job.deadline <= self.now
            self.end(job, "expired")
        self.batcher.expired.clear()
        if work is None:
            return
        assert len({(job.lane, job.key) for job in work.jobs}) == 1
        assert all(job not in self.ended and job.deadline > self.now for job in work.jobs)
        self.passed = {lane: self.passed.get(lane, 0) + 1 for lane in idle if lane.raw and lane is not work.lane}
        assert all(turns < len(self.batchings) for turns in self.passed.values())
        self.works.append(work)
        if not work.run:
            assert work.jobs[0].stage == DECODING
            return
        batching = work.jobs[0].batching
        assert work.items == sum(job.items for job in work.jobs) <= batching.most
        assert batching.merge or len(work.jobs) == 1
        assert work.size >= work.items
        assert not batching.sizes or work.size in batching.sizes
        assert work.lane.running <= work.lane.streams
        assert [*work.jobs] == sorted(work.jobs, key=lambda job: (job.priority, job.number))
        for job in work.jobs:
            assert job not in self.begun
            for other in self.waiting(job):
                assert (other.priority, other.number) > (job.priority, job.number), "overtaken"
            self.begun.append(job)

    def waiting(self, job: Job) -> list[Job]:
        """Those that are ready for the same call, and stay."""
        if job.lane.fused:
            return [other for _, _, other in job.lane.raw]
        group = job.lane.groups.get(job.key)
        return [other for _, _, other in group.heap] if group else []

    @precondition(lambda self: self.works)
    @rule(data=st.data(), good=st.booleans())
    def finish(self, data: st.DataObject, good: bool) -> None:
        work = self.works.pop(data.draw(st.integers(0, len(self.works) - 1)))
        if work.run:
            self.batcher.done(work)
            for job in work.jobs:
                self.end(job, "ran")
        elif good:
            self.batcher.decoded(work.jobs[0], data.draw(st.sampled_from("xy")), self.now)
        else:
            self.batcher.undecodable(work.jobs[0])
            if work.jobs[0] not in self.ended:
                self.end(work.jobs[0], "undecodable")

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.jobs))
        could = job not in self.ended and job not in self.begun
        assert self.batcher.drop(job) is could
        if could:
            self.end(job, "dropped")
        if not job.lane.raw:
            self.passed.pop(job.lane, None)  # nobody is kept waiting there

    @rule(seconds=st.sampled_from([0.25, 1.0, 4.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def end(self, job: Job, how: str) -> None:
        assert job not in self.ended, (job, self.ended[job], how)
        self.ended[job] = how

    @invariant()
    def counts_are_right(self) -> None:
        assert self.batcher.jobs == len(self.jobs) - len(self.ended)
        for lane in self.batchings:
            assert lane.ready == sum(len(group.heap) for group in lane.groups.values())
            assert all(
                group.heap and group.items == sum(job.items for _, _, job in group.heap)
                for group in lane.groups.values()
            )

    @invariant()
    def whoever_waits_for_a_free_model_will_be_called(self) -> None:
        """If threads find nothing now, there is a time at which they will."""
        for lane in self.batchings:
            if lane.waiting and lane.running < lane.streams and not self.batcher.due(self.now):
                assert self.now < self.batcher.until() < inf

    def teardown(self) -> None:
        """In the end all are gone, one way or the other."""
        for _ in range(10 * len(self.jobs) + 10):
            while self.works:
                work = self.works.pop()
                if work.run:
                    self.batcher.done(work)
                    for job in work.jobs:
                        self.end(job, "ran")
                else:
                    self.batcher.decoded(work.jobs[0], "x", self.now)
            self.now += 0.7
            self.take()
        assert len(self.ended) == len(self.jobs)
        assert self.batcher.jobs == 0


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
