"""Several processes on one port: one door to look at, one to stop."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.request

from .processes import FAIRWAY, Running, Watched, children


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def test_one_door_of_three_processes() -> None:
    with Running([*FAIRWAY, "proxy", "--static=9001,9002", "--port=0", "--processes=3", "--mode=address"]) as proxy:
        ports = {int(proxy.line(r"listening on http://127\.0\.0\.1:(\d+)/")[1]) for _ in range(3)}
        assert len(ports) == 1
        (port,) = ports
        for _ in range(40):
            assert re.fullmatch(r"127\.0\.0\.1:900[12]\n", get(port, "/"))
        metrics = get(port, "/-/metrics")
        assert "\nfairway_proxy_processes 3\n" in metrics
        assert '\nfairway_proxy_requests_total{service="classify",worker="",code="200"} 40\n' in metrics
        assert len(json.loads(get(port, "/-/workers"))["services"]["classify"]) == 2
        members = children(proxy.pid)
        assert len(members) == 3
        watched = Watched(members)
        os.kill(members[0], signal.SIGKILL)  # ... and another one takes its place
        proxy.line("ended with status -9")
        proxy.line("listening on")
        for _ in range(20):
            get(port, "/")
        replaced = Watched(children(proxy.pid))
        proxy.send(signal.SIGTERM)
        assert proxy.ended() == 0
        assert watched.gone()
        assert replaced.gone()
        watched.close()
        replaced.close()


def test_what_no_restart_would_cure_ends_them_all() -> None:
    with Running([*FAIRWAY, "proxy", "--static=9001", "--port=0", "--processes=2", "--tls-cert=/nowhere.pem"]) as proxy:
        assert proxy.ended() == 78
        assert "/nowhere.pem" in proxy.said
