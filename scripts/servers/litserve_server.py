"""Usage: litserve_server.py PORT   Two processes with a model each."""

import json
import os
import sys
from typing import Any

import litserve
from model import best, decoded, loaded


class Classifier(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.model = loaded() if os.environ["BENCH_RUNTIME"] != "none" else None

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # an annotation would be a form's schema
        return bytes(request["data"].file.read())

    def predict(self, photo: bytes) -> list[list[Any]]:
        return best(self.model(decoded(photo))[0]) if self.model else []

    def encode_response(self, found: list[list[Any]]) -> Any:
        return json.loads(json.dumps(found))


if __name__ == "__main__":
    litserve.LitServer(Classifier(), accelerator="cpu", workers_per_device=2).run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )
