"""Pictures over the Open Inference Protocol: as BYTES, as a raw body, and their classes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import pytest

from fairway.worker.openinference import classification
from fairway.worker.wire import openinference as wire
from fairway.worker.wire.openinference import InferRequest, RequestedOutput

from .colours import plain
from .openinference_calls import infer, pictures, post
from .tensor_stage import Stage, plain_models, serving

RED, BLUE = plain("#ff0000", format="PNG"), plain("#0000fe", format="JPEG")
PIXELS = np.zeros((2, 4, 4, 3), np.float32)
PIXELS[0, :, :, 1] = PIXELS[1, :, :, 2] = 9


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with serving(*plain_models()) as stage:
        yield stage


@pytest.fixture
async def session(stage: Stage) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://{stage.address}", timeout=aiohttp.ClientTimeout(20)) as session:
        yield session


# -- as one of several tensors, or the only one -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["image", "pixels"])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
async def test_pictures(session: aiohttp.ClientSession, name: str, shape: tuple[int, ...]) -> None:
    request = InferRequest(pictures(RED, BLUE, name=name, shape=shape), binary=True)
    scores = (await infer(session, "colours", request)).outputs["scores"]
    assert scores.dtype == np.float32
    assert scores.shape == (2, 3)
    np.testing.assert_allclose(scores, [[1, 0, 0], [0, 0, 1]], atol=0.05)


async def test_pictures_by_the_tensors_name(session: aiohttp.ClientSession) -> None:
    request = InferRequest(pictures(RED), (RequestedOutput("shares"),))
    assert (await infer(session, "colours", request)).outputs["shares"].argmax() == 0


async def test_pixels(session: aiohttp.ClientSession) -> None:
    shares = (await infer(session, "colours", InferRequest({"pixels": PIXELS}))).outputs["shares"]
    np.testing.assert_allclose(shares, [[0, 1, 0], [0, 0, 1]], atol=1e-4)


async def test_labels_for_pictures(session: aiohttp.ClientSession) -> None:
    wanted = (RequestedOutput("scores", classes=2, binary=True),)
    found = (await infer(session, "colours", InferRequest(pictures(RED, BLUE), wanted))).outputs["scores"]
    assert found.shape == (2, 2)
    best = [row[0].decode().split(":") for row in found]
    assert [(index, label) for _, index, label in best] == [("0", "red"), ("2", "blue")]
    assert all(0.9 < float(score) <= 1 for score, _, _ in best)


async def test_classes_of_numbers(session: aiohttp.ClientSession) -> None:
    body = {
        "inputs": [{"name": "pixels", "shape": [2, 4, 4, 3], "datatype": "FP32", "data": PIXELS.ravel().tolist()}],
        "outputs": [{"name": "shares", "parameters": {"classification": 9}}],
    }
    (output,) = (await post(session, "/v2/models/colours/infer", body))[1]["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 3])
    assert [text.split(":")[1:] for text in output["data"][:3:3] + output["data"][3:4]] == [
        ["1", "green"],
        ["2", "blue"],
    ]
    body = {
        "inputs": [{"name": "v", "shape": [4], "datatype": "FP32", "data": [1, 9, 3, 7]}],
        "outputs": [{"name": "ranks", "parameters": {"classification": 2}}],
    }
    (output,) = (await post(session, "/v2/models/single/infer", body))[1]["outputs"]
    assert (output["shape"], output["data"]) == ([2], ["3:1", "2:3"])


@pytest.mark.parametrize(
    ("scores", "classes", "labels", "batched", "expected"),
    [
        ([[0.5, 3.3, 0.5, 2.4]], 3, (), True, [["3.3:1", "2.4:3", "0.5:0"]]),
        ([[0.5, 3.3], [1e-7, -1]], 9, ("a", "b"), True, [["3.3:1:b", "0.5:0:a"], ["1e-07:0:a", "-1:1:b"]]),
        ([1.5, 1.5, 2], 2, ("wrong", "number"), False, ["2:2", "1.5:0"]),
        ([np.nan, -np.inf, 1], 3, (), False, ["1:2", "nan:0", "-inf:1"]),
        ([[[1, 2], [3, 4]]], 2, (), True, [["4:3", "3:2"]]),
        (7.0, 1, (), False, ["7:0"]),
        ([], 2, (), False, []),
    ],
)
def test_the_best_of_numbers(scores: Any, classes: int, labels: Any, batched: bool, expected: Any) -> None:
    found = classification(np.array(scores, np.float32), RequestedOutput("y", classes), labels, batched)
    assert [[t.decode() for t in row] if batched else row.decode() for row in found.tolist()] == expected


def test_the_best_of_whole_numbers() -> None:
    for dtype in (np.uint8, np.int64, np.bool_):
        found = classification(np.array([0, 1, 0], dtype), RequestedOutput("y", 2), (), False)
        assert found.tolist() == [b"1:1", b"0:0"]


# -- as the body ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [b"", b"not "])
async def test_a_raw_body_of_text(session: aiohttp.ClientSession, prefix: bytes) -> None:
    async with session.post(
        "/v2/models/lengths/infer", data=prefix + b"a jpeg", headers={wire.HEADER: "0"}
    ) as response:
        body = await response.read()
        found = wire.decode_response(body, wire.header_length(response.headers[wire.HEADER], len(body))).outputs
    assert found["reversed"].tolist() == [(prefix + b"a jpeg")[::-1]]
    assert found["length"].tolist() == [len(prefix) + 6]


async def raw(session: aiohttp.ClientSession, body: bytes, **headers: str) -> Any:
    async with session.post("/v2/models/colours/infer", data=body, headers={wire.HEADER: "0", **headers}) as response:
        answer = await response.read()
        if response.status != 200:
            return response.status, json.loads(answer)["error"]
        return wire.decode_response(answer, wire.header_length(response.headers[wire.HEADER], len(answer))).outputs


@pytest.mark.parametrize("picture", [RED, BLUE, plain("#ff0000", format="BMP"), plain("#ff0000", format="GIF")])
async def test_a_raw_body_that_is_a_picture(session: aiohttp.ClientSession, picture: bytes) -> None:
    best = 2 if picture is BLUE else 0
    for headers in ({}, {"Content-Type": "image/png"}):
        found = await raw(session, picture, **headers)
        assert list(found) == ["scores"]
        assert (found["scores"].shape, int(found["scores"].argmax())) == ((1, 3), best)


async def test_a_raw_picture_with_its_length(session: aiohttp.ClientSession) -> None:
    found = await raw(session, len(BLUE).to_bytes(4, "little") + BLUE)
    assert int(found["scores"].argmax()) == 2


async def test_a_raw_body_that_is_the_pixels(session: aiohttp.ClientSession) -> None:
    found = await raw(session, PIXELS.tobytes())
    np.testing.assert_allclose(found["shares"], [[0, 1, 0], [0, 0, 1]], atol=1e-4)
    # Two letters begin a BMP file, but a tensor may begin with them as well.
    pixels = b"BM" + PIXELS[0].tobytes()[2:]
    assert "shares" in await raw(session, pixels)
    status, error = await raw(session, pixels, **{"Content-Type": "image/bmp"})
    assert (status, error[:12]) == (400, "broken image")
    # What begins as a JPEG is one, whatever its length.
    assert int((await raw(session, BLUE + bytes(-len(BLUE) % (4 * 4 * 3 * 4))))["scores"].argmax()) == 2


async def test_a_raw_body_that_is_nothing_of_the_kind(session: aiohttp.ClientSession) -> None:
    status, error = await raw(session, b"hello")
    assert (status, error[:12]) == (415, "not an image")
    status, error = await raw(session, b"\xff\xd8\xff\xe0 broken")
    assert status == 400
    assert "broken image" in error
    status, found = await post(session, "/v2/models/single/infer", b"12345", **{wire.HEADER: "0"})
    assert (status, found["error"]) == (
        400, "Inference-Header-Content-Length is 0, but the body's 5 bytes do not make FP32 of shape [4]",
    )  # fmt: skip
