"""Settings of a worker."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from ..registry.config import require_loopback, require_port
from ..registry.credentials import StoreSettings
from ..registry.options import option
from .errors import ConfigurationError

Precision = Literal["exact", "bf16", "int8-ok"]


@dataclass(frozen=True)
class WorkerSettings(StoreSettings):
    model: str = option(
        "flowers",
        "what to serve: flowers (bundled), a folder (SavedModel, or numbered versions of a model), .keras, .h5, .pb, "
        ".tflite, .onnx, .xml, .pt, .pt2, keras:NAME, or python:MODULE:FACTORY",
    )
    models: str = option("", "serve every model in this folder instead, each a folder of numbered versions")
    model_config: str = option("", "serve the models of this file instead; TensorFlow Serving's text form")
    version_policy: str = option("latest", "which versions: latest, latest:N, all, or specific:N,N")
    version_labels: str = option("", "names of versions, e.g. stable=1,canary=2")
    poll_seconds: float = option(1.0, "how often folders and the config file are looked at; 0: at SIGHUP only")
    weights: str = option("", "weights file for keras:NAME; without it Keras downloads ImageNet's")
    labels: str = option("", "labels file, one a line; otherwise taken from the model card or beside the model")
    runtime: str = option(
        "auto",
        "engine that runs the model: auto (the fastest that is installed and equal), tensorflow, litert, onnx, "
        "openvino, torch, python",
    )
    precision: Precision = option("exact", "what auto may choose: exact float32, bf16 as well, or int8 as well")
    choices: str = option(
        "", "folder for what auto found out; empty: .fairway beside the model, or else the user's cache"
    )
    batching: str = option(
        "auto", "auto (measured at warm-up), off, or e.g. max=32,wait_ms=2,sizes=1:8:32; sizes are padded up to"
    )
    host: str = option("127.0.0.1", "address to listen on; anything but loopback wants --insecure")
    port: int = option(0, "TCP port; 0 takes a free one", env="FAIRWAY_WORKER_PORT")
    advertise: str = option("", "HOST or HOST:PORT under which others reach this worker, if not the one it listens on")
    service: str = option("classify", "name to register under")
    service_version: str = option("", "version to register under, e.g. 1.2.0")
    threads: int = option(0, "threads for decoding and inference; 0: one a core")
    max_waiting: int = option(64, "requests held at once; further ones get 429")
    max_bytes: int = option(64 * 1024 * 1024, "largest upload, in bytes; larger ones get 413")
    max_json_bytes: int = option(
        16 * 1024 * 1024,
        "largest JSON body, in bytes; larger ones get 413. To read it holds all else up, some 2 ms a megabyte: numbers are "
        "better sent as .npy or as binary tensors",
    )
    max_pixels: int = option(50_000_000, "largest picture, in pixels; larger ones get 413 from their header")
    drain_seconds: float = option(5.0, "after SIGTERM: how long addresses may still be cached by clients")
    finish_seconds: float = option(30.0, "after that: how long requests in flight may take")
    deadline_seconds: float = option(30.0, "how long a request may take, waiting included; 504 after that")
    hang_seconds: float = option(
        60.0, "a call of the model that takes longer ends the worker, to be started anew; 0: never"
    )
    grpc_port: int | None = option(None, "TCP port for gRPC as well; 0 takes a free one")
    cors: bool = option(False, "let pages of any site call the TensorFlow Serving paths")
    insecure: bool = option(False, "listen beyond loopback although nobody is asked who they are")
    input_width: int | None = option(None, "overrides the model card: pixels the model wants")
    input_height: int | None = option(None, "overrides the model card: pixels the model wants")
    input_channels: str | None = option(None, "overrides the model card: RGB, BGR or L (gray)")
    input_resize: str | None = option(None, "overrides the model card: crop, squash, pad or none")
    input_filter: str | None = option(
        None, "overrides the model card: nearest, bilinear, bicubic, lanczos, tf-bilinear"
    )
    input_mean: str | None = option(
        None, "overrides the model card: subtracted from pixels 0..255; one number or three"
    )
    input_std: str | None = option(None, "overrides the model card: what the difference is divided by")
    input_layer: str = option("", "frozen graphs: tensor to feed, if it is not the only placeholder")
    output_layer: str = option("", "frozen graphs: tensor to read, if it is not final_result")

    def __post_init__(self) -> None:
        require_port("--port", self.port)
        if self.grpc_port is not None:
            require_port("--grpc-port", self.grpc_port)
        require_loopback(self.host, self.insecure)
        for name in ("max_waiting", "max_bytes", "max_json_bytes", "max_pixels"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"--{name.replace('_', '-')}: {getattr(self, name)} is too few")

    def input_overrides(self) -> dict[str, Any]:
        """What the user said of the input, in the model card's words; None where nothing was said."""
        said: dict[str, Any] = {
            f.name.removeprefix("input_"): getattr(self, f.name)
            for f in fields(self)
            if f.name.startswith("input_") and f.name != "input_layer"
        }
        for name in ("mean", "std"):
            if said[name] is not None:
                try:
                    said[name] = [float(number) for number in said[name].split(",")]
                except ValueError as error:
                    raise ConfigurationError(f"--input-{name}: {said[name]!r} is not a number, or three") from error
        return said
