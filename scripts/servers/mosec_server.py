"""Usage: mosec_server.py --address 127.0.0.1 --port PORT   Two processes, as its documentation advises for two cores."""

import os
from typing import Any

from model import answer, decoded, loaded, upload
from mosec import Server, Worker


class Classifier(Worker):
    def __init__(self) -> None:
        self.model = loaded() if os.environ["BENCH_RUNTIME"] != "none" else None

    def deserialize(self, data: bytes) -> bytes:
        return data

    def serialize(self, data: Any) -> bytes:
        return bytes(data)

    def forward(self, data: bytes) -> bytes:
        photo = upload(data)
        return answer(self.model(decoded(photo))[0]) if self.model else b"[]"


if __name__ == "__main__":
    server = Server()
    server.append_worker(Classifier, num=2)
    server.run()
