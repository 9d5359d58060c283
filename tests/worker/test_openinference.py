"""The Open Inference Protocol over HTTP, as a client that knows its text and no library would speak it."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import ml_dtypes
import numpy as np
import pytest

from fairway.worker.model import Model
from fairway.worker.wire import datatypes
from fairway.worker.wire import openinference as wire
from fairway.worker.wire.openinference import InferRequest, RequestedOutput

from .colours import plain
from .openinference_calls import get, infer, pictures, post, tensor
from .tensor_stage import LIMIT, Small, Stage, Sums, colours, plain_models, serving

X = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
K = np.array([1, 10])
SUMS: dict[str, Any] = {"x": X, "k": K}
RED = plain("#ff0000")
GOOD = [tensor("x", "FP32", X), tensor("k", "INT64", K)]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with serving(*plain_models()) as stage:
        yield stage


@pytest.fixture
async def session(stage: Stage) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://{stage.address}", timeout=aiohttp.ClientTimeout(20)) as session:
        yield session


# -- what there is ----------------------------------------------------------------------------------------------------


async def test_the_server(session: aiohttp.ClientSession) -> None:
    status, found = await get(session, "/v2")
    assert (status, found["name"]) == (200, "fairway")
    assert {"binary_tensor_data", "classification", "model_repository", "statistics"} <= set(found["extensions"])
    assert await get(session, "/v2/health/live") == (200, {"live": True})
    assert await get(session, "/v2/health/ready") == (200, {"ready": True})


async def test_a_worker_that_drains(stage: Stage, session: aiohttp.ClientSession) -> None:
    stage.engine.draining = True
    assert await get(session, "/v2/health/live") == (200, {"live": True})
    for path in ("/v2/health/ready", "/v2/models/sums/ready"):
        assert await get(session, path) == (503, {"error": "the worker is draining"})


async def test_a_models_tensors(session: aiohttp.ClientSession) -> None:
    expected = {
        "name": "sums",
        "versions": ["1"],
        "platform": "python",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 2, 3]},
            {"name": "k", "datatype": "INT64", "shape": [-1]},
        ],
        "outputs": [
            {"name": "sum", "datatype": "FP32", "shape": [-1]},
            {"name": "scaled", "datatype": "FP32", "shape": [-1, 2, 3]},
        ],
    }
    assert await get(session, "/v2/models/sums") == (200, expected)
    assert await get(session, "/v2/models/sums/versions/1") == (200, expected)
    every = (await get(session, "/v2/models/everything"))[1]["inputs"]
    assert all(tensor["name"] == tensor["datatype"] for tensor in every)


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v2/models/nothing", 404, "Servable not found for request: Latest(nothing)"),
        ("/v2/models/nothing/ready", 404, "Could not find any versions of model nothing"),
        ("/v2/models/sums/versions/7", 404, "Servable not found for request: Specific(sums, 7)"),
        ("/v2/models/sums/versions/7/ready", 404, "Could not find version 7 of model sums"),
        ("/v2/models/sums/versions/99999999999999999999999999", 404, "Specific"),
        ("/v2/models/sums/versions/stable", 400, "Unrecognized servable version label: stable"),
        ("/v2/models/sums/versions/stable/ready", 400, "Unrecognized servable version label: stable"),
        ("/v2/models/nothing/stats", 404, "Could not find any versions of model nothing"),
        ("/v2/models/sums/versions/7/stats", 404, "Servable not found"),
    ],
)
async def test_what_there_is_not(session: aiohttp.ClientSession, path: str, status: int, error: str) -> None:
    found = await get(session, path)
    assert found[0] == status
    assert error in found[1]["error"]


async def test_versions() -> None:
    async with serving(colours(1), colours(3)) as stage, aiohttp.ClientSession(f"http://{stage.address}") as session:
        assert (await get(session, "/v2/models/colours"))[1]["versions"] == ["1", "3"]
        request = InferRequest(pictures(RED), binary=True)
        found = [(await infer(session, "colours", request, version)).version for version in ("", "1", "3")]
        assert found == ["3", "1", "3"]
        assert await get(session, "/v2/models/colours/versions/1/ready") == (200, {"name": "colours", "ready": True})


async def test_out_of_service_and_back(tmp_path: Path) -> None:
    async with (
        serving(colours(1), colours(2), Model("sums", 1, Sums()), folder=tmp_path) as stage,
        aiohttp.ClientSession(f"http://{stage.address}") as session,
    ):
        names = {"name": "colours", "version": "2", "state": "READY", "reason": ""}
        index = (await post(session, "/v2/repository/index"))[1]
        assert len(index) == 3
        assert names in index
        assert await post(session, "/v2/repository/models/sums/unload") == (200, None)
        assert (await get(session, "/v2/models/sums/ready"))[0] == 503
        assert (await get(session, "/v2/health/ready"))[0] == 200  # it was wished so
        assert (await post(session, "/v2/models/sums/infer", {"inputs": GOOD}))[0] == 404
        index = (await post(session, "/v2/repository/index", {}))[1]
        assert [entry["state"] for entry in index if entry["name"] == "sums"] == ["UNAVAILABLE"]
        index = (await post(session, "/v2/repository/index", {"ready": True}))[1]
        assert {entry["name"] for entry in index} == {"colours"}
        assert {entry["name"] for entry in (await get(session, "/v2/models/stats"))[1]["model_stats"]} == {"colours"}
        assert await post(session, "/v2/repository/models/sums/load", {}) == (200, None)
        assert await get(session, "/v2/models/sums/ready") == (200, {"name": "sums", "ready": True})
        assert (await post(session, "/v2/models/sums/infer", {"inputs": GOOD}))[0] == 200
        for what in ("load", "unload"):
            status, found = await post(session, f"/v2/repository/models/nothing/{what}")
            assert (status, found["error"]) == (404, "Could not find any versions of model nothing")


async def test_to_load_may_take_longer_than_a_request(tmp_path: Path) -> None:
    slow, other = Sums(), Sums()
    models = Model("slow", 1, slow), Model("other", 1, other)
    async with (
        serving(*models, folder=tmp_path, deadline_seconds=0.2) as stage,
        aiohttp.ClientSession(f"http://{stage.address}") as session,
    ):
        await post(session, "/v2/repository/models/slow/unload")
        for loaded in (slow, other):
            loaded.gate.clear()
        loading = asyncio.create_task(post(session, "/v2/repository/models/slow/load"))
        assert (await post(session, "/v2/models/other/infer", {"inputs": GOOD}))[0] == 504
        assert (await post(session, "/v2/models/other/infer", {"inputs": GOOD}))[0] == 504
        for loaded in (slow, other):
            loaded.gate.set()
        assert await loading == (200, None)


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("index", {"ready": 1}, "ready is 1; expected true or false"),
        ("index", b"[", "JSON"),
        ("index", [], "expected an object"),
        ("models/sums/load", {"parameters": {"config": "{}"}}, "parameters like config are not taken"),
        ("models/sums/unload", b"nonsense", "JSON"),
    ],
)
async def test_what_a_repository_refuses(session: aiohttp.ClientSession, path: str, body: Any, error: str) -> None:
    status, found = await post(session, f"/v2/repository/{path}", body)
    assert status == 400
    assert error in found["error"]
    assert (await get(session, "/v2/models/sums/ready"))[0] == 200


# -- tensors ----------------------------------------------------------------------------------------------------------


async def test_json_as_the_protocol_shows_it(session: aiohttp.ClientSession) -> None:
    inputs = [
        {"name": "x", "shape": [2, 2, 3], "datatype": "FP32", "data": X.tolist()},
        {"name": "k", "shape": [2], "datatype": "INT64", "data": [1, 10]},
    ]
    status, found = await post(session, "/v2/models/sums/infer", {"id": "42", "inputs": inputs})
    assert (status, found["model_name"], found["model_version"], found["id"]) == (200, "sums", "1", "42")
    assert found["outputs"] == [
        {"name": "sum", "datatype": "FP32", "shape": [2], "data": [15.0, 51.0]},
        {"name": "scaled", "datatype": "FP32", "shape": [2, 2, 3], "data": (X * K.reshape(2, 1, 1)).ravel().tolist()},
    ]
    wanted = [{"name": "sum", "parameters": {"binary_data": False}}]
    status, found = await post(session, "/v2/models/sums/versions/1/infer", {"inputs": inputs, "outputs": wanted})
    assert [output["name"] for output in found["outputs"]] == ["sum"]
    assert "id" not in found


async def test_bytes_as_the_extension_shows_them(session: aiohttp.ClientSession) -> None:
    found = await infer(session, "sums", InferRequest(SUMS, binary=True))
    assert list(found.outputs) == ["sum", "scaled"]
    np.testing.assert_array_equal(found.outputs["scaled"], X * K.reshape(2, 1, 1))
    wanted = (RequestedOutput("scaled", binary=True), RequestedOutput("sum"))
    found = await infer(session, "sums", InferRequest(SUMS, wanted, "7"))
    assert (list(found.outputs), found.id) == (["scaled", "sum"], "7")
    np.testing.assert_array_equal(found.outputs["sum"], [15, 51])


async def test_every_datatype(session: aiohttp.ClientSession) -> None:
    arrays: dict[str, Any] = {
        name: np.array([[0, 1], [100, 7]]).astype(dtype) for name, dtype in datatypes.NUMPY.items() if name != "BYTES"
    }
    arrays["BYTES"] = np.array([[b"\xff\0", b""], [b"text", "ä".encode()]], object)
    arrays["BF16"] = np.array([[0.1, -3e38], [1, 1e-38]], ml_dtypes.bfloat16)
    found = (await infer(session, "everything", InferRequest(arrays, binary=True))).outputs
    for name, array in arrays.items():
        assert found[name].tolist() == array.tolist(), name


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_compressed(session: aiohttp.ClientSession, coding: str) -> None:
    pieces, length = wire.encode_request(InferRequest(SUMS))
    compress = gzip.compress if coding == "gzip" else zlib.compress
    headers = {wire.HEADER: str(length), "Content-Encoding": coding}
    status, found = await post(session, "/v2/models/sums/infer", compress(b"".join(pieces)), **headers)
    assert (status, found["outputs"][0]["data"]) == (200, [15, 51])


async def test_many_clients_at_once(session: aiohttp.ClientSession) -> None:
    async def one(number: int) -> float:
        request = InferRequest({"x": np.full((1, 2, 3), number, np.float32), "k": np.array([number])}, binary=True)
        return float((await infer(session, "sums", request)).outputs["sum"][0])

    assert await asyncio.gather(*(one(number) for number in range(40))) == [6 * number for number in range(40)]


# -- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "body", "status", "error"),
    [
        ("nothing", {"inputs": GOOD}, 404, "Servable not found for request: Latest(nothing)"),
        ("sums/versions/2", {"inputs": GOOD}, 404, "Specific(sums, 2)"),
        ("sums", {"inputs": GOOD[:1]}, 400, "'k'"),
        ("sums", {"inputs": [*GOOD, tensor("z", "INT8", [1])]}, 400, "'z'"),
        ("sums", {"inputs": [tensor("x", "FP64", X), GOOD[1]]}, 400, "'x' is of float64; expected float32"),
        ("sums", {"inputs": [tensor("x", "FP32", X[:, :1]), GOOD[1]]}, 400, "'x' has shape [2, 1, 3]"),
        ("sums", {"inputs": [tensor("x", "FP32", X[:1]), GOOD[1]]}, 400, "items"),
        ("sums", {"inputs": GOOD, "outputs": [{"name": "y"}]}, 400, "sums has no output 'y'; expected one of sum, scaled"),
        ("sums", {"inputs": GOOD, "parameters": {"timeout": -1}}, 400, "timeout is -1; expected microseconds"),
        ("sums", {"inputs": [tensor("x", "FP32", X + 1000), GOOD[1]]}, 500, "that is too much"),
        ("sums", {"inputs": [tensor("image", "BYTES", ["abc"])]}, 400, "sums takes no pictures: it has no card"),
        ("everything", {"inputs": GOOD}, 400, "'FP32'"),
        ("colours", {"inputs": [tensor("image", "BYTES", ["abc"])]}, 415, "not an image"),
        ("colours", {"inputs": [tensor("image", "BYTES", [["a", "b"]])]}, 400, "pictures come as [n] or [n, 1]"),
        ("colours", {"inputs": [tensor("image", "BYTES", [])]}, 400, "pictures come as"),
        (
            "colours", {"inputs": [tensor("image", "BYTES", ["x"])], "outputs": [{"name": "logits"}]},
            400, "an answer to pictures has no output 'logits'; expected one of scores",
        ),
        ("colours", {"inputs": [tensor("other", "BYTES", ["x"])]}, 400, "'other'"),
        ("colours", {"inputs": [tensor("image", "BYTES", ["x"]), GOOD[1]]}, 400, "'k'"),
        (
            "lengths", {
                "inputs": [tensor("text", "BYTES", ["ab"])],
                "outputs": [{"name": "reversed", "parameters": {"classification": 1}}],
            }, 400, "no array of numbers",
        ),
    ],
)  # fmt: skip
async def test_bad_calls(session: aiohttp.ClientSession, model: str, body: Any, status: int, error: str) -> None:
    found = await post(session, f"/v2/models/{model}/infer", body)
    assert found[0] == status, found
    assert error in found[1]["error"]
    assert (await infer(session, "sums", InferRequest(SUMS))).outputs["sum"].tolist() == [15, 51]


@pytest.mark.parametrize(
    ("body", "length", "error"),
    [
        (b"", None, "JSON"),
        (b"[" * 10_000, None, "JSON"),
        (b'{"inputs": []}', "15", "how many of the body's 14 bytes"),
        (b'{"inputs": []}', "-3", "Inference-Header-Content-Length is '-3'"),
        (b"\xff\xd8\xff\xe0", None, "JSON"),
    ],
)
async def test_bad_bodies(session: aiohttp.ClientSession, body: bytes, length: str | None, error: str) -> None:
    headers = {} if length is None else {wire.HEADER: length}
    status, found = await post(session, "/v2/models/sums/infer", body, **headers)
    assert status == 400
    assert error in found["error"]


async def test_too_many_bytes(session: aiohttp.ClientSession) -> None:
    async with session.post("/v2/models/sums/infer", data=io.BytesIO(bytes(LIMIT + 1))) as response:
        assert response.status == 413
    bomb = gzip.compress(bytes(LIMIT + 1))
    assert (await post(session, "/v2/models/sums/infer", bomb, **{"Content-Encoding": "gzip"}))[0] == 413


async def test_a_timeout_of_the_requests_own(stage: Stage, session: aiohttp.ClientSession) -> None:
    loaded = stage.repository.find("sums").loaded
    assert isinstance(loaded, Sums)
    loaded.gate.clear()
    body = {"inputs": GOOD, "parameters": {"timeout": 50_000}}
    try:
        status, found = await post(session, "/v2/models/sums/infer", body)
    finally:
        loaded.gate.set()
    assert status == 504, found
    assert (await infer(session, "sums", InferRequest(SUMS))).outputs["sum"].tolist() == [15, 51]


async def test_full(stage: Stage, session: aiohttp.ClientSession) -> None:
    stage.engine.max_waiting = 1
    loaded = stage.repository.find("sums").loaded
    assert isinstance(loaded, Small)
    loaded.entered.clear()
    loaded.gate.clear()
    first = asyncio.create_task(infer(session, "sums", InferRequest(SUMS)))
    try:
        await asyncio.to_thread(loaded.entered.wait, 10)
        body = {"inputs": GOOD}
        async with session.post("/v2/models/sums/infer", json=json.loads(json.dumps(body))) as response:
            assert response.status == 429
            assert int(response.headers["Retry-After"]) >= 1
            assert "error" in await response.json()
    finally:
        loaded.gate.set()
    assert (await first).outputs["sum"].tolist() == [15, 51]


async def test_statistics(session: aiohttp.ClientSession) -> None:
    for _ in range(3):
        await infer(session, "sums", InferRequest(SUMS))
    await infer(session, "colours", InferRequest(pictures(RED)))
    await post(session, "/v2/models/sums/infer", {"inputs": GOOD[:1]})
    for path in ("/v2/models/sums/stats", "/v2/models/sums/versions/1/stats"):
        (found,) = (await get(session, path))[1]["model_stats"]
        assert (found["name"], found["version"]) == ("sums", "1")
        assert found["inference_count"] >= 6
        stats = found["inference_stats"]
        assert (stats["success"]["count"], stats["fail"]["count"], stats["compute_infer"]["count"]) == (3, 1, 3)
        assert stats["compute_infer"]["ns"] > 0
    every = (await get(session, "/v2/models/stats"))[1]["model_stats"]
    assert {entry["name"] for entry in every} == {"colours", "sums", "everything", "lengths", "single"}
    (pictured,) = [entry for entry in every if entry["name"] == "colours"]
    assert pictured["inference_stats"]["compute_input"]["count"] == 1
