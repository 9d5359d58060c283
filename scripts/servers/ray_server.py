"""Usage: ray_server.py PORT   Two replicas with a model each, one CPU for each."""

import os
import signal
import sys
from typing import Any

import ray
from model import best, decoded, loaded
from ray import serve
from starlette.requests import Request

NAMES = ("BENCH_MODEL", "BENCH_RUNTIME", "BENCH_CARD", "BENCH_THREADS", "PYTHONPATH")


@serve.deployment(num_replicas=2, max_ongoing_requests=64, ray_actor_options={"num_cpus": 1})
class Classifier:
    def __init__(self) -> None:
        self.model = loaded() if os.environ["BENCH_RUNTIME"] != "none" else None

    async def __call__(self, request: Request) -> list[Any]:
        photo = await (await request.form())["data"].read()  # type: ignore[union-attr]
        return best(self.model(decoded(photo))[0]) if self.model else []


given = {name: os.environ[name] for name in NAMES if name in os.environ}
ray.init(num_cpus=4, include_dashboard=False, runtime_env={"env_vars": given})
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
serve.run(Classifier.bind())
signal.pause()
