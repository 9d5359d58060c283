"""Usage: bentoml serve bento_service:Classifier --host 127.0.0.1 --port PORT   Two processes with a model each."""

import os
from pathlib import Path
from typing import Annotated, Any

import bentoml
from bentoml.validators import ContentType
from model import best, decoded, loaded


@bentoml.service(workers=2, traffic={"timeout": 60})
class Classifier:
    def __init__(self) -> None:
        self.model = loaded() if os.environ["BENCH_RUNTIME"] != "none" else None

    @bentoml.api
    def classify(self, data: Annotated[Path, ContentType("image/jpeg")]) -> list[Any]:
        photo = data.read_bytes()
        return best(self.model(decoded(photo))[0]) if self.model else []
