"""What this process takes of the machine, read when somebody asks."""

from __future__ import annotations

import os
from pathlib import Path

from .metrics import Usage


def usage(proc: Path = Path("/proc")) -> Usage:
    """Source of the fields: proc(5), /proc/self/statm, /proc/self/fd, field 22 of /proc/self/stat, btime of /proc/stat."""
    spent = os.times()
    cpu_seconds = spent.user + spent.system
    own = proc / "self"
    try:
        resident = int((own / "statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
        files = len(os.listdir(own / "fd")) - 1  # the listing itself takes one
        # Behind the name of the program, which may hold anything, fields are counted from the third.
        ticks = int((own / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[22 - 3])
        boot = next(line for line in (proc / "stat").read_text("ascii").splitlines() if line.startswith("btime "))
        started = int(boot.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, StopIteration):
        return Usage(cpu_seconds)
    return Usage(cpu_seconds, resident, files, started)
