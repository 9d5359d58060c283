"""Calls of the Open Inference Protocol, as a client makes them that knows its text and no library."""

from __future__ import annotations

import json
import re
from typing import Any

import aiohttp
import numpy as np

from fairway.worker.wire import openinference as wire
from fairway.worker.wire.openinference import InferRequest, InferResponse


async def get(session: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    async with session.get(path) as response:
        assert response.content_type == "application/json"
        return response.status, json.loads(await response.read())


async def post(session: aiohttp.ClientSession, path: str, body: Any = b"", **headers: str) -> tuple[int, Any]:
    """The JSON of the answer, or None where it has no body."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with session.post(path, data=data, headers=headers) as response:
        text = await response.read()
        return response.status, json.loads(text) if text else None


async def infer(session: aiohttp.ClientSession, model: str, request: InferRequest, version: str = "") -> InferResponse:
    """By bytes in both directions, where the request wants them."""
    pieces, length = wire.encode_request(request)
    path = f"/v2/models/{model}{version and f'/versions/{version}'}/infer"
    async with session.post(path, data=b"".join(pieces), headers={wire.HEADER: str(length)}) as response:
        body = await response.read()
        assert response.status == 200, body
        length_said = response.headers.get(wire.HEADER)
        assert response.content_type == ("application/json" if length_said is None else wire.BINARY)
        assert re.fullmatch(
            r"queue;dur=.*, decode;dur=.*, infer;dur=.*, encode;dur=.*", response.headers["Server-Timing"]
        )
        return wire.decode_response(body, wire.header_length(length_said, len(body)))


def pictures(*uploads: bytes, name: str = "image", shape: tuple[int, ...] = (-1,)) -> dict[str, Any]:
    array = np.empty(len(uploads), object)
    array[:] = uploads
    return {name: array.reshape(shape)}


def tensor(name: str, datatype: str, array: Any, **more: Any) -> dict[str, Any]:
    array = np.asarray(array)
    return {"name": name, "datatype": datatype, "shape": array.shape, "data": array.tolist(), **more}
