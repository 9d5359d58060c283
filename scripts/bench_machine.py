"""What benches ask of the machine: cores, ports, CPU time and memory of processes."""

from __future__ import annotations

import os
import platform
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
CONTENDER_CORE, LOAD_CORE = 0, (os.cpu_count() or 1) - 1


def pinned(core: int) -> Callable[[], None]:
    """For a child process before it becomes another program."""
    return lambda: os.sched_setaffinity(0, {core})


def family(pid: int) -> list[int]:
    """A process and all its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in family(int(child)))]


def cpu_seconds(pid: int) -> float:
    """utime + stime of a process and its children, from /proc."""
    spent = 0
    for each in family(pid):
        words = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        spent += int(words[11]) + int(words[12])
    return spent / TICKS


def peak_memory(pid: int) -> float:
    """The most that a process, or the largest of its children, ever held (VmHWM), in MB of a million bytes."""
    return max(
        int(line.split()[1]) * 1024 / 1e6
        for each in family(pid)
        for line in Path(f"/proc/{each}/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def listens(port: int, seconds: float = 10.0, alive: Callable[[], bool] = lambda: True) -> bool:
    until = time.monotonic() + seconds
    while alive() and time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return True
    return False


def described() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = names[0] if names else platform.machine()
    return f"{os.cpu_count()} x {model}, Linux {platform.release().partition('-')[0]}"


def busy_seconds() -> float:
    """User and system time of everybody on this machine."""
    words = Path("/proc/stat").read_text().split()
    return sum(map(int, words[1:4])) / TICKS


def own_seconds() -> float:
    """User and system time of this process and of those of its children that ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def end_on_sigterm() -> None:
    """As on SIGINT: what was started is ended."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
