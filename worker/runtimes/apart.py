"""What takes long, or may crash, is done in a process of its own, which comes after whoever serves on this machine.

By `nice`: a process that computes only when nobody else wants to (SCHED_IDLE) would never be done on a busy machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

# Whether others are served by this process while its thread loads a model; set by who does.
beside_others: ContextVar[bool] = ContextVar("beside_others", default=False)

LIMIT_SECONDS = 300.0  # a process that takes longer is ended
NICE = (
    5  # a quarter of a core beside two that serve; much less, and a version that comes to a busy machine takes an hour
)
PATIENCE = 6  # times as long, while it waits for a processor more than it has one


def asked(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What `trial.py` says to a request, line by line; the last one is an error if it did not end well."""
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as said, os.fdopen(reading, encoding="utf-8") as answers:
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", f"{__package__}.trial", str(writing)],
                stdin=subprocess.PIPE, stdout=said, stderr=said, pass_fds=(writing,), env=environment,
            )  # fmt: skip
        finally:
            os.close(writing)
        with contextlib.suppress(OSError):  # it has ended
            os.setpriority(os.PRIO_PROCESS, process.pid, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
        end = _End(process)
        end.start()
        try:
            assert process.stdin is not None, "a pipe"
            with contextlib.suppress(BrokenPipeError):  # it is dead already; of what, is said below
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
            cut = False
            for line in answers:
                if cut := not line.endswith("\n"):  # it died over it
                    break
                yield json.loads(line)
            if (code := process.wait()) or cut:
                said.seek(0)
                last = said.read().decode(errors="replace").strip().splitlines()[-1:]
                how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
                if end.after:
                    how = f"it took longer than {end.after:g} s"
                yield {"error": f"the process that tried it ended ({how}): {''.join(last)[:200]}"}
        finally:
            end.over.set()
            process.kill()
            process.wait()
            if process.stdin:
                with contextlib.suppress(BrokenPipeError):  # what it did not read is still to be written
                    process.stdin.close()


class _End(threading.Thread):
    """Kills a process that takes too long; `over`: it has ended by itself. `after`: seconds, once it was killed."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(name="end", daemon=True)
        self._process = process
        self.over = threading.Event()
        self.after = 0.0

    def run(self) -> None:
        waited = 0.0
        for _ in range(PATIENCE):
            if self.over.wait(LIMIT_SECONDS):
                return
            waited += LIMIT_SECONDS
            if not starved(self._process.pid):
                break
        self.after = waited
        self._process.kill()


def starved(pid: int) -> bool:
    """Whether its first thread has waited for a processor longer than it had one; False where the system does not tell.

    Source: https://docs.kernel.org/scheduler/sched-stats.html, /proc/PID/schedstat.
    """
    try:
        ran, waited = Path(f"/proc/{pid}/schedstat").read_text().split()[:2]
    except (OSError, ValueError):
        return False
    return int(waited) > int(ran)
