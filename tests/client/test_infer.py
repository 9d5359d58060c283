"""Tensors through the client library, to small real workers that answer them, in all three manners."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from fairway.client import Client, ClientError, InputRefused, NoWorker, SyncClient, WorkerFailed
from fairway.client.config import Via
from fairway.registry.instance import Address
from fairway.worker.wire import openinference

from ..proxy.stage import HOST, Seen, Worker, cluster, proxy_for, says, url
from ..worker.colours import plain
from ..worker.tensor_stage import plain_models, serving

VIAS: tuple[Via, ...] = ("address", "forward", "redirect")
INPUTS = {
    "floats": np.arange(6, dtype=np.float32).reshape(2, 3),
    "bytes": np.array([b"\xff\xd8 a picture \0", b""], object),
    "one": np.array(7),
}


async def echo(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
    """Every input comes back, what is a number doubled; or only those that were asked for."""
    length = openinference.header_length(seen.headers.get(openinference.HEADER), len(seen.body))
    asked = openinference.decode_request(seen.body, length)
    names = [output.name for output in asked.outputs] or list(asked.inputs)
    outputs = {name: a * 2 if (a := asked.inputs[name]).dtype != object else a for name in names}
    binary = {output.name for output in asked.outputs if output.binary} or (names if asked.binary else [])
    pieces, size = openinference.encode_response(openinference.InferResponse("m", "1", outputs), binary)
    headers = {openinference.HEADER: str(size)} if size is not None else {}
    return web.Response(body=b"".join(pieces), headers=headers)


@pytest.mark.parametrize("via", VIAS)
async def test_tensors_there_and_back(via: Via) -> None:
    async with cluster(echo, echo) as (proxy, workers), Client(url(proxy), via=via) as client:
        for _ in range(4):
            found = await client.infer(INPUTS, "m")
            assert list(found) == list(INPUTS)
            assert found["floats"].dtype == np.float32
            np.testing.assert_array_equal(found["floats"], INPUTS["floats"] * 2)
            assert found["bytes"].tolist() == INPUTS["bytes"].tolist()
            assert (found["one"].shape, int(found["one"])) == ((), 14)
        assert [len(worker.requests) for worker in workers] == [2, 2]
        seen = workers[0].requests[0]
        assert (seen.method, seen.target) == ("POST", "/v2/models/m/infer")
        assert INPUTS["floats"].tobytes() in seen.body
        assert ("Via" in seen.headers) is (via == "forward")


@pytest.mark.parametrize("via", VIAS)
async def test_a_version_and_some_outputs(via: Via) -> None:
    async with cluster(echo) as (proxy, (worker,)), Client(url(proxy), via=via) as client:
        found = await client.infer(INPUTS, "a model/2", version=3, outputs=["one"])
        assert list(found) == ["one"]
        assert worker.requests[0].target == "/v2/models/a%20model%2F2/versions/3/infer"


async def test_lists_and_fixed_strings() -> None:
    inputs: dict[str, Any] = {"bytes": [b"ends with zeros\0\0", b""], "floats": [[1.5, 2]]}
    async with Worker(echo) as worker, Client(f"http://{worker.address}", via="forward") as client:
        found = await client.infer(inputs, "m")
        assert found["bytes"].tolist() == inputs["bytes"]
        assert found["floats"].tolist() == [[3, 4]]


async def test_many_at_once_go_to_all_workers() -> None:
    async with cluster(echo, echo, echo) as (proxy, workers), Client(url(proxy)) as client:
        inputs = [{"x": np.full((2, 2), number, np.int64)} for number in range(30)]
        found = await asyncio.gather(*(client.infer(one, "m") for one in inputs))
        assert [int(one["x"][0, 0]) for one in found] == [2 * number for number in range(30)]
        assert {len(worker.requests) for worker in workers} == {10}


@pytest.mark.parametrize("via", ["address", "redirect"])
async def test_a_busy_worker_is_passed_by(via: Via) -> None:
    async with cluster(says(429, b"{}"), echo) as (proxy, (_, free)), Client(url(proxy), via=via) as client:
        for _ in range(4):
            await client.infer(INPUTS, "m")
        assert len(free.requests) == 4


ERRORS: list[tuple[int, bytes, type[ClientError], str]] = [
    (400, b'{"error": "no input is called x"}', InputRefused, "^no input is called x$"),
    (404, b'{"error": "no such model"}', NoWorker, "^no such model$"),
    (500, b'{"error": "it fell over"}', WorkerFailed, "answered 500: it fell over"),
    (200, b"", WorkerFailed, "200, but not with tensors: JSON"),
    (200, b"[]", WorkerFailed, "not with tensors"),
    (200, b'{"outputs": [{"name": "y"}]}', WorkerFailed, "not with tensors: tensor 'y': the datatype is None"),
]


@pytest.mark.parametrize(("status", "body", "error", "text"), ERRORS)
async def test_typed_errors(status: int, body: bytes, error: type[ClientError], text: str) -> None:
    async with cluster(says(status, body)) as (proxy, _), Client(url(proxy), timeout=5) as client:
        with pytest.raises(error, match=text):
            await client.infer(INPUTS, "m")


async def test_an_answer_that_is_cut_short() -> None:
    text = b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}]}'
    headers = {openinference.HEADER: str(len(text))}
    async with cluster(says(200, text + b"\0" * 7, headers)) as (proxy, _), Client(url(proxy)) as client:
        with pytest.raises(WorkerFailed, match="8 bytes are cut short: 7 are left"):
            await client.infer(INPUTS, "m")


async def test_what_the_protocol_cannot_say() -> None:
    async with Client("http://127.0.0.1:1") as client:
        with pytest.raises(ValueError, match="no datatype for complex128"):
            await client.infer({"x": np.ones(1, complex)}, "m")


async def test_without_await() -> None:
    def call(address: str) -> dict[str, Any]:
        with SyncClient(address) as client:
            return client.infer(INPUTS, "m", outputs=["floats"])

    async with cluster(echo) as (proxy, _):
        found = await asyncio.to_thread(call, url(proxy))
        np.testing.assert_array_equal(found["floats"], INPUTS["floats"] * 2)


def test_who_sends_images_only_needs_no_numpy() -> None:
    code = "import sys, fairway.client.client, fairway.client.sync; print({'numpy', 'orjson', 'simdjson'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


async def test_numpy_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    async with Client("http://127.0.0.1:1") as client:
        with pytest.raises(ClientError, match=r"pip install 'fairway\[worker\]'"):
            await client.infer({}, "m")


@pytest.mark.parametrize("via", VIAS)
async def test_a_real_worker(via: Via) -> None:
    x, k = np.arange(12, dtype=np.float32).reshape(2, 2, 3), np.array([1, 10])
    async with (
        serving(*plain_models()) as stage,
        proxy_for(Address(HOST, stage.port)) as proxy,
        Client(url(proxy), via=via) as client,
    ):
        found = await client.infer({"x": x, "k": k}, "sums", version=1)
        np.testing.assert_array_equal(found["scaled"], x * k.reshape(2, 1, 1))
        assert found["sum"].tolist() == [15, 51]
        scores = (await client.infer({"image": [plain("#ff0000"), plain("#0000ff")]}, "colours"))["scores"]
        assert scores.argmax(axis=1).tolist() == [0, 2]
        assert (await client.infer({"text": ["Löwe"]}, "lengths", outputs=["length"]))["length"].tolist() == [5]
        with pytest.raises(InputRefused, match="not an image"):
            await client.infer({"image": [b"no picture"]}, "colours")
        with pytest.raises(InputRefused, match="'x' is of float64; expected float32"):
            await client.infer({"x": x.astype(float), "k": k}, "sums")
        with pytest.raises(NoWorker, match="Servable not found"):
            await client.infer({"x": x, "k": k}, "nothing")
