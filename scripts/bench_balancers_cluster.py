"""A cluster on paper: workers, proxies, a clock that is a number. The pools and balancers are the real ones.

A worker takes one image at a time, in the order of coming, for as long as its inference takes and its decoding, which goes
with the image's size. A proxy knows its own requests, and what workers say with their answers.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from math import exp
from random import Random

from fairway.client.balancing import Balancer, balancer_of
from fairway.client.candidates import Candidates
from fairway.client.pool import Outcome, Pool, Upstream
from fairway.registry.instance import Address, Instance
from fairway.worker.wire import load

INFERENCE_SECONDS = 0.015
BYTES_PER_SECOND = 20e6  # decoded
MEDIAN_BYTES, SPREAD, LEAST, MOST = 100e3, 1.0, 10e3, 10e6  # log-normal, cut at both ends
MAX_WAITING = 64  # a worker's own limit: 429, and to come again in a second
TRIES = 3
SLOW_SHARE, SLOW = 0.2, 2.0  # in a mixed cluster a fifth of the workers takes twice as long
FAILS_IN = 0.001
CLIENTS = 20_000  # for hash:HEADER; some send far more than others

ONE_QUEUE = "one queue"

ANSWERED, FAILED, LOST = Outcome.ANSWERED, Outcome.FAILED, Outcome.CONNECTION


@dataclass(frozen=True)
class Case:
    """`balance`: as `--balance`; `random`, for comparison; or `one queue`: the earliest free worker, which nobody can know.

    `kind`: `equal`; `mixed`, some workers slower; `weighted`, the same and the registry says so; `failing`, one answers 500
    at once; `refusing`, one refuses connections. `told`: workers say their load.
    """

    balance: str
    load: float
    kind: str = "equal"
    proxies: int = 8
    workers: int = 1000
    requests: int = 200_000
    told: bool = True
    seed: int = 1


@dataclass(frozen=True)
class Result:
    """Seconds from arriving to the answer; `imbalance`: the busiest worker's work over the mean, each by its speed.

    `hole`: the part of all tries that went to the failing worker, over its fair share. `retried`, `failed`: parts of all
    requests; the latter met a 500, or had no worker after all tries, and are in no latency.
    """

    p50: float
    p99: float
    p999: float
    imbalance: float
    hole: float
    retried: float
    failed: float


class Randomly:
    def __init__(self, random: Random) -> None:
        self._random = random

    def choose(self, candidates: Candidates, now: float, key: bytes = b"") -> Upstream:
        return candidates.pick(self._random)


class Machine:
    """A worker."""

    __slots__ = ("free_at", "in_flight", "slowness", "work")

    def __init__(self, slowness: float) -> None:
        self.slowness = slowness
        self.in_flight, self.free_at, self.work = 0, 0.0, 0.0


class Proxy:
    def __init__(self, case: Case, instances: list[Instance], random: Random) -> None:
        self.pool = Pool()
        self.pool.update(instances, 0.0)
        self.balancer: Balancer = Randomly(random) if case.balance == "random" else balancer_of(case.balance, random)


def service_seconds(size: float) -> float:
    return INFERENCE_SECONDS + size / BYTES_PER_SECOND


def sizes(random: Random, count: int) -> list[float]:
    """Bytes."""
    return [min(max(MEDIAN_BYTES * exp(random.gauss(0, SPREAD)), LEAST), MOST) for _ in range(count)]


class Cluster:
    def __init__(self, case: Case) -> None:
        self.case = case
        self.random = Random(case.seed)
        mixed = case.kind in ("mixed", "weighted")
        slow = int(SLOW_SHARE * case.workers) if mixed else 0
        self.machines = [Machine(SLOW if i < slow else 1.0) for i in range(case.workers)]
        self.hole = case.workers - 1 if case.kind in ("failing", "refusing") else -1
        instances = [
            Instance(
                f"{i:04}",
                "classify",
                Address("w", 1 + i),
                weight=1 if case.kind != "weighted" or i < slow else int(SLOW),
            )
            for i in range(case.workers)
        ]
        proxies = 0 if case.balance == ONE_QUEUE else case.proxies
        self.proxies = [Proxy(case, instances, Random(f"{case.seed} {i}")) for i in range(proxies)]
        self.free = [(0.0, i) for i in range(case.workers)]  # when, of ONE_QUEUE
        self.answers: list[tuple[float, int, Proxy, Upstream, Machine, float, bool]] = []  # by time; the least is next
        self.tries = self.at_hole = self.retries = self.failures = 0

    def run(self) -> Result:
        case, random = self.case, self.random
        images = [service_seconds(size) for size in sizes(random, case.requests)]
        capacity = sum(1 / machine.slowness for machine in self.machines) / (sum(images) / len(images))
        warm = case.requests // 4
        now, seconds = 0.0, []
        for number, work in enumerate(images):
            now += random.expovariate(case.load * capacity)
            if number == warm:
                for machine in self.machines:
                    machine.work = 0.0
            if case.balance == ONE_QUEUE:
                took: float | None = self.sent_ideally(work, now)
            else:
                self.answered(now)
                key = b"%d" % int(CLIENTS * random.random() ** 2) if case.balance.startswith("hash") else b""
                took = self.sent(random.choice(self.proxies), number, work, now, key)
            if number >= warm and took is not None:
                seconds.append(took)
        seconds.sort()
        works = [machine.work for i, machine in enumerate(self.machines) if i != self.hole]
        p50, p99, p999 = (seconds[int(part * len(seconds))] for part in (0.5, 0.99, 0.999))
        imbalance = max(works) / (sum(works) / len(works))
        hole = self.at_hole / max(self.tries, 1) * case.workers
        return Result(p50, p99, p999, imbalance, hole, self.retries / case.requests, self.failures / case.requests)

    def sent(self, proxy: Proxy, number: int, work: float, now: float, key: bytes) -> float | None:
        """-> seconds until the answer, if it is one."""
        pool, tried = proxy.pool, set[str]()
        while len(tried) < TRIES:
            candidates = pool.candidates(now, tried)
            if not candidates:
                break
            self.retries += bool(tried)
            upstream = proxy.balancer.choose(candidates, now, key)
            place = upstream.order
            machine = self.machines[place]
            self.tries += 1
            pool.started(upstream, now)
            if place == self.hole:
                self.at_hole += 1
                if self.case.kind == "failing":
                    machine.in_flight += 1
                    heapq.heappush(self.answers, (now + FAILS_IN, number, proxy, upstream, machine, now, True))
                    self.failures += 1
                    return None
                pool.finished(upstream, LOST, now, FAILS_IN)
            elif machine.in_flight >= MAX_WAITING:
                pool.busy(upstream, now + 1.0)
                pool.finished(upstream, ANSWERED, now)
            else:
                machine.in_flight += 1
                machine.work += work * machine.slowness
                machine.free_at = done = max(now, machine.free_at) + work * machine.slowness
                heapq.heappush(self.answers, (done, number, proxy, upstream, machine, now, False))
                return done - now
            tried.add(upstream.id)
        self.failures += 1
        return None

    def answered(self, now: float) -> None:
        """What the proxies hear until then."""
        answers, told = self.answers, self.case.told
        while answers and answers[0][0] <= now:
            at, _, proxy, upstream, machine, since, failed = heapq.heappop(answers)
            machine.in_flight -= 1
            if told:
                value = load.encode(machine.in_flight, max(0, machine.in_flight - 1), machine.in_flight / MAX_WAITING)
                proxy.pool.reported(upstream, value.encode())
            proxy.pool.finished(upstream, FAILED if failed else ANSWERED, at, at - since)

    def sent_ideally(self, work: float, now: float) -> float:
        free_at, place = self.free[0]
        machine = self.machines[place]
        machine.work += work * machine.slowness
        done = max(now, free_at) + work * machine.slowness
        heapq.heapreplace(self.free, (done, place))
        return done - now


def simulated(case: Case) -> Result:
    return Cluster(case).run()
