"""The supervisor: clear ends, nothing left behind."""

from __future__ import annotations

import json
import signal
import socket
import urllib.request
from pathlib import Path

import pytest

from ..conftest import picture
from .conftest import Cluster
from .processes import FAIRWAY, Running, Watched, children

LAUNCH = (*FAIRWAY, "launch", "--workers=1", "--registry-port=0", "--proxy-port=0")


def test_no_such_model_stops_everything_with_one_clear_line(tmp_path: Path) -> None:
    with Running([*LAUNCH, f"--model={tmp_path / 'nowhere'}"]) as launch:
        assert launch.ended() == 78
        assert launch.lines[-1].startswith("fairway: worker 1: no such model:")
        assert "Traceback" not in launch.said


def test_wrong_number_of_labels_stops_everything(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("one\ntwo\n")
    with Running([*LAUNCH, f"--labels={labels}"]) as launch:
        assert launch.ended() == 78
        assert "2 labels, but the model has 5 outputs" in launch.lines[-1]


@pytest.mark.parametrize("part", ["registry", "proxy"])
def test_a_taken_port_stops_everything(part: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Running([*LAUNCH, f"--{part}-port={port}"]) as launch:
            assert launch.ended() == 78
            assert f"{part}: the {part} cannot listen on 127.0.0.1:{port}" in launch.lines[-1]
        assert len(launch.lines) == 1, "nothing was started"


def test_a_bad_option_of_the_workers_stops_everything() -> None:
    with Running([*LAUNCH, "--", "--nosuch"]) as launch:
        assert launch.ended() == 78
        assert "worker 1:" in launch.lines[-1]
        assert "unrecognized arguments: --nosuch" in launch.lines[-1]


def test_a_second_cluster_on_the_same_ports_is_not_taken_for_ours(cluster: Cluster) -> None:
    ports = [f"--registry-port={cluster.registry}", f"--proxy-port={cluster.proxy}"]
    with Running([*FAIRWAY, "launch", "--workers=1", *ports]) as launch:
        assert launch.ended() == 78
        assert "does another cluster run?" in launch.lines[-1]
        assert "Ready." not in launch.said


def test_a_bad_option_is_named() -> None:
    with Running([*FAIRWAY, "launch", "--workers=many"]) as launch:
        assert launch.ended() == 78
        assert launch.lines == ["fairway: --workers: 'many' will not do: a whole number from 0 up is needed"]


def test_other_addresses_want_insecure() -> None:
    with Running([*FAIRWAY, "proxy", "--host=0.0.0.0", "--port=0"]) as proxy:
        assert proxy.ended() == 78
        assert "--insecure" in proxy.said


def test_sigterm_drains_and_leaves_no_process_behind() -> None:
    with Running(LAUNCH) as launch:
        launch.line(r"^Ready\.", 120)
        port = int(launch.line(r"^ +proxy +http://127\.0\.0\.1:(\d+)/")[1])
        parts = Watched(children(launch.pid))
        finishes_an_upload(launch, port, r"\[proxy\] .*draining: 1 requests in flight")
        assert launch.ended() == 0
        assert parts.gone(0)
        parts.close()


def test_a_worker_finishes_what_it_was_given() -> None:
    with Running([*FAIRWAY, "worker", "--registry=none"]) as worker:
        port = int(worker.line(r"serving flowers on http://127\.0\.0\.1:(\d+)/")[1])
        finishes_an_upload(worker, port, "draining: 1 requests in flight")
        assert worker.ended() == 0


def finishes_an_upload(running: Running, port: int, draining: str) -> None:
    """The head and the beginning of an upload are sent before SIGTERM, the rest once it drains."""
    upload = picture(1)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(upload)}\r\n\r\n".encode() + upload[:1000])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
            assert json.load(answer) == {"status": "ok"}  # so the beginning was read, too
        running.send(signal.SIGTERM)
        running.line(draining)
        client.sendall(upload[1000:])
        said = client.recv(65536)
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close" in said


def test_parts_end_when_their_supervisor_is_killed() -> None:
    with Running(LAUNCH) as launch:
        launch.line(r"^Ready\.", 120)
        started = children(launch.pid)
        assert len(started) == 3
        parts = Watched(started)
        launch.send(signal.SIGKILL)
        assert parts.gone(30)
        parts.close()


def test_a_worker_waits_for_its_registry() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Running([*FAIRWAY, "worker", f"--registry=127.0.0.1:{port}", "--drain-seconds=0"]) as worker:
        worker.line(rf"no registry at 127\.0\.0\.1:{port} yet", 60)
        with Running([*FAIRWAY, "registry", f"--port={port}"]) as registry:
            registry.line(r"passing classify at 127\.0\.0\.1:\d+", 30)
            worker.send(signal.SIGTERM)
            registry.line(r"gone classify at", 30)
            assert worker.ended() == 0
