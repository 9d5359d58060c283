"""What a model's calls cost, measured when it is added: few of them, as somebody waits for it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from time import perf_counter

from .tuning import ENOUGH, Figures, ways

SIZES = (1, 2, 4, 8, 16, 32)
LOOK = 4  # items in the call that shows whether larger ones are worth measuring
GAIN = 1.05  # so many times the items a second make them so
WAKE = 100e-6  # seconds that all cores must gain at least: to wake them is not for nothing
WORTH = 0.7  # of what is best so far: what is below that is not measured on
REPEAT = 3
LONG = 0.03  # seconds after which a size has been called often enough
ROUNDS = 3
CLEAR = 0.75  # of what several calls side by side could give at best, there is nothing to doubt
SURE = 0.02  # of the time that a call took, it cost at least
MOST_BESIDE = 0.05  # seconds of a call that is made while others are served
ODD_COST = 3.0  # so many times the usual makes the first call of a new size a stumble
ODD_SECONDS = 0.02

Call = Callable[[int, bool], None]  # (items, wide): one call of the model


def measure(
    call: Call, sizes: tuple[int, ...], streams: int, *, seconds: float = 1.5, calm: Callable[[], None] | None = None
) -> Figures:
    """Calls the model, each size warmed first, until it is clear what pays, or for about `seconds`.

    `sizes`: ascending. `calm`: others are served meanwhile: it is called before each call, and returns at a good moment;
    then there are fewer calls, few of them on all cores, and none side by side.
    """
    figures = Figures(streams)
    began = perf_counter()
    one, narrow = sizes[0], figures.narrow
    _measure(call, one, figures, True, calm)
    if streams > 1 and calm is None:
        figures.side = _side_by_side(call, one, streams, narrow[one])
    elif streams > 1:
        figures.side = float(streams)  # not tried; batches on one core are compared without it
    wide = calm is None
    # Where four items gain nothing, nothing is gained by more.
    for size in sorted((n for n in sizes if n != one), key=lambda n: (n != LOOK, n)):
        expected = narrow[one] * size / one
        if LOOK in narrow and one < LOOK:
            expected = narrow[one] + max(0.0, narrow[LOOK] - narrow[one]) * (size - one) / (LOOK - one)
        left = seconds - (perf_counter() - began)
        if (2 + REPEAT) * (2 if wide else 1) * expected > left or (calm and expected > MOST_BESIDE):
            continue
        _measure(call, size, figures, wide, calm)
        if size == LOOK:
            single, others = ways(figures)
            best = max(way.rate for way in others)
            if best < GAIN * single.rate:
                break
            wide = wide and any(way.wide and way.rate > WORTH * best for way in others)
    figures.narrow = dict(sorted(figures.narrow.items()))
    figures.wide = dict(sorted(figures.wide.items()))
    if max(figures.narrow) > LOOK:
        usual = max(cost for n, cost in figures.narrow.items() if n <= LOOK)
        odd, _ = _timed(call, LOOK - 1, False, calm)  # which was never called
        figures.odd = odd > max(ODD_COST * usual, usual + ODD_SECONDS)
    return figures


def _measure(call: Call, size: int, figures: Figures, wide: bool, calm: Callable[[], None] | None) -> None:
    """The best of a few calls on one core, and if `wide` on all.

    What others do on this machine meanwhile is left out as far as can be: time in which the thread waits for a processor
    is no cost of the model.
    """
    _timed(call, size, False, calm)
    figures.narrow[size] = min(_several(call, size, False, calm))[0]
    if wide:
        _timed(call, size, True, calm)
        times = _several(call, size, True, calm)
        figures.wide[size] = min(wall for _, wall in times)  # others may compute for it while this thread waits
        if size == min(figures.narrow):
            wide_cost, usual = min(times)[0], figures.narrow[size]
            figures.widens = wide_cost < min(ENOUGH * usual, usual - WAKE)


def _several(call: Call, size: int, wide: bool, calm: Callable[[], None] | None) -> list[tuple[float, float]]:
    times = [_timed(call, size, wide, calm)]
    while len(times) < (2 if calm else REPEAT) and sum(wall for _, wall in times) < LONG:
        times.append(_timed(call, size, wide, calm))
    return times


def _timed(call: Call, size: int, wide: bool, calm: Callable[[], None] | None) -> tuple[float, float]:
    """Seconds, without those in which this thread waited for a processor, and with them."""
    if calm is not None:
        calm()
    waited, began = _waited(), perf_counter()
    call(size, wide)
    wall = perf_counter() - began
    return max(wall - (_waited() - waited), SURE * wall), wall


def _waited() -> float:
    """Seconds that this thread has waited for a processor; where the system does not tell, always the same.

    Source: https://docs.kernel.org/scheduler/sched-stats.html, /proc/PID/schedstat.
    """
    try:
        with open("/proc/thread-self/schedstat", "rb") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def _side_by_side(call: Call, size: int, streams: int, cost: float) -> float:
    """So many times as many calls as one thread do `streams` threads. What a call raises is raised here."""
    seconds, cores = min(0.25, max(0.03, 5 * cost)), os.cpu_count() or streams
    side = beside = alone = 0.0
    for _ in range(ROUNDS):  # others on this machine spoil one or the other
        beside = max(beside, _calls_a_second(call, size, streams, seconds))
        alone = max(alone, _calls_a_second(call, size, 1, seconds))
        side = beside / alone
        if side > CLEAR * min(streams, cores):
            break
    return min(side, cores)


def _calls_a_second(call: Call, size: int, threads: int, seconds: float) -> float:
    """Of all threads together, had each a processor when it wanted one."""
    rates: list[float] = []
    failed: list[BaseException] = []

    def loop() -> None:
        try:
            waited, began, calls = _waited(), perf_counter(), 0
            while not calls or perf_counter() < began + seconds:
                call(size, False)
                calls += 1
            took = perf_counter() - began
            rates.append(calls / max(took - (_waited() - waited), SURE * took))
        except BaseException as error:
            failed.append(error)

    crowd = [threading.Thread(target=loop, name="measure", daemon=True) for _ in range(threads)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    if failed:
        raise failed[0]
    return sum(rates)
