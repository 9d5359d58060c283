"""The line that lives while a bench runs: which level, how fast, how late, how much went wrong. On a terminal only."""

from __future__ import annotations

from time import monotonic
from typing import NoReturn

from tqdm import tqdm

from .tally import Tally

FORMAT = "{desc} |{bar}| {n:.0f} of {total:.0f} s{postfix}"


class Progress:
    """`seconds`: that the whole run takes, as far as is known."""

    def __init__(self, seconds: float) -> None:
        self._bar: tqdm[NoReturn] = tqdm(
            total=seconds, bar_format=FORMAT, disable=None, leave=False, mininterval=0.0, dynamic_ncols=True
        )
        self._at = monotonic()
        self._seen = self._errors = 0

    def begin(self, name: str) -> None:
        """A window, or what comes before the first."""
        self._bar.set_postfix_str("", refresh=False)
        self._bar.set_description_str(name)
        self._at, self._seen = monotonic(), 0

    def longer(self, seconds: float) -> None:
        self._bar.total = (self._bar.total or 0.0) + seconds

    def tick(self, tally: Tally) -> None:
        """What was seen since the last one."""
        now = monotonic()
        passed = now - self._at
        late = sorted(tally.lately)
        tally.lately.clear()
        if self._bar.disable:
            return
        rate = (tally.completed - self._seen) / passed if passed > 0 else 0.0
        slowest = f"{late[int(0.99 * (len(late) - 1))] * 1000:.1f} ms" if late else "-"
        errors = self._errors + sum(tally.errors.values())
        self._bar.set_postfix_str(f"{rate:.0f}/s, p99 {slowest}, {errors} errors", refresh=False)
        self._bar.update(passed)
        self._bar.refresh()
        self._at, self._seen = now, tally.completed

    def end(self, tally: Tally) -> None:
        """Of a window."""
        self._errors += sum(tally.errors.values())

    def close(self) -> None:
        self._bar.close()
