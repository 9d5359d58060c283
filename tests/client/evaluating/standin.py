"""A web service as the EMNIST post has it: POST {"instances": rows} -> {"predictions": scores}. A small real classifier.

Each class is the mean of its pictures; scores are how near those are. It can be told to hold an answer back, or to die.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSES = 62  # as the post's model; ours knows ten of them
SIZE = 8


def digits(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures of ten kinds, 8x8: a bright row or column each, in noise. `count` of them, with their numbers."""
    random = np.random.RandomState(seed)
    numbers = random.randint(0, 10, count)
    pictures = random.randint(0, 195, (count, SIZE, SIZE))
    for picture, number in zip(pictures, numbers, strict=True):
        if number < 5:
            picture[number + 1] += 60
        else:
            picture[:, number - 4] += 60
    return pictures.astype(np.uint8), numbers


class StandIn(ThreadingHTTPServer):
    """`asked`: the rows of each request. `answering`: told of each before it is answered, by its number from 1."""

    daemon_threads = True

    def __init__(self) -> None:
        pictures, numbers = digits(400, 0)
        self.means = np.stack([pictures[numbers == number].reshape(-1, SIZE * SIZE).mean(0) for number in range(10)])
        self.asked: list[NDArray[np.float64]] = []
        self.connections = 0
        self.answering: Callable[[int], None] = lambda number: None
        super().__init__(("127.0.0.1", 0), _Handler)

    def die(self) -> None:
        """From within `answering`: nobody listens any more, and this connection breaks."""
        self.shutdown()
        self.socket.close()
        raise ConnectionAbortedError

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass

    def get_request(self) -> Any:
        self.connections += 1
        return super().get_request()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def scores(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 64) in 0..1 -> (n, 62)."""
        distances = ((rows[:, None] * 255 - self.means[None]) ** 2).mean(2)
        near = np.exp(-(distances - distances.min(1, keepdims=True)) / 100)
        return np.pad(near / near.sum(1, keepdims=True), ((0, 0), (0, CLASSES - 10)))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: StandIn

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        if not sent.startswith(b"{"):
            status, body = 400, b'{"error": "rows are wanted"}'
        else:
            sent_rows = np.asarray(json.loads(sent)["instances"])
            rows = sent_rows.reshape(len(sent_rows), -1)
            self.server.asked.append(rows)
            self.server.answering(len(self.server.asked))
            status, body = 200, json.dumps({"predictions": self.server.scores(rows).tolist()}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def standing_in() -> Iterator[StandIn]:
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
