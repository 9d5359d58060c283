"""What this process takes of the machine, read when somebody asks."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """None: this platform does not tell without a library."""

    cpu_seconds: float
    resident_bytes: int | None = None
    open_files: int | None = None


STARTED = time.time()  # of the import, which is near enough to tell a restart by


def usage(proc: Path = Path("/proc/self")) -> Usage:
    """Source of the fields: proc(5), statm and fd."""
    spent = os.times()
    cpu_seconds = spent.user + spent.system
    try:
        resident = int((proc / "statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
        files = len(os.listdir(proc / "fd")) - 1  # the listing itself takes one
    except (OSError, ValueError, IndexError):
        return Usage(cpu_seconds)
    return Usage(cpu_seconds, resident, files)
