"""Triton's own HTTP client against a worker: run as `triton_http.py HOST:PORT CHECK`, where the client is installed.

The worker serves what `tensor_stage.plain_models` makes. A check that fails says why, and ends the process with 1.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

np: Any = import_module("numpy")
ml_dtypes: Any = import_module("ml_dtypes")
triton: Any = import_module("tritonclient.http")
utils: Any = import_module("tritonclient.utils")

X = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
K = np.array([1, 10])


def tensor(name: str, array: Any, binary: bool = True) -> Any:
    given = triton.InferInput(name, list(array.shape), utils.np_to_triton_dtype(array.dtype))
    return given.set_data_from_numpy(array, binary_data=binary)


def sums(binary: bool = True, x: Any = X) -> list[Any]:
    return [tensor("x", x, binary), tensor("k", K[: len(x)], binary)]


def strings(*elements: bytes) -> Any:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


def refused(call: Any, status: str, text: str) -> None:
    answer = None
    try:
        call()
    except utils.InferenceServerException as error:
        answer = error
    assert answer is not None, f"it was not refused: {text}"
    assert (answer.status(), text in answer.message()) == (status, True), answer


def health(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("sums")
    assert client.is_model_ready("sums", "1")
    assert not client.is_model_ready("sums", "2")
    assert not client.is_model_ready("nothing")


def metadata(client: Any) -> None:
    server = client.get_server_metadata()
    assert server["name"] == "fairway"
    assert "binary_tensor_data" in server["extensions"]
    model = client.get_model_metadata("sums", "1")
    assert model["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [-1, 2, 3]}
    refused(lambda: client.get_model_metadata("nothing"), "404", "Servable not found for request: Latest(nothing)")


def infer_bytes(client: Any) -> None:
    result = client.infer("sums", sums(), request_id="42", model_version="1")
    np.testing.assert_array_equal(result.as_numpy("scaled"), X * K.reshape(2, 1, 1))
    assert result.as_numpy("sum").tolist() == [15, 51]
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("42", "sums", "1")


def infer_json(client: Any) -> None:
    wanted = [triton.InferRequestedOutput("scaled", binary_data=False)]
    result = client.infer("sums", sums(binary=False), outputs=wanted)
    np.testing.assert_array_equal(result.as_numpy("scaled"), X * K.reshape(2, 1, 1))
    assert result.as_numpy("sum") is None
    odd = np.array([[[np.nan, np.inf, 1], [2, 3, 4]]], np.float32)
    found = client.infer("sums", sums(False, odd), outputs=wanted).as_numpy("scaled")
    np.testing.assert_array_equal(found, odd)


def infer_both(client: Any) -> None:
    wanted = [triton.InferRequestedOutput("sum", binary_data=False), triton.InferRequestedOutput("scaled")]
    result = client.infer("sums", [tensor("x", X), tensor("k", K, False)], outputs=wanted)
    np.testing.assert_array_equal(result.as_numpy("scaled"), X * K.reshape(2, 1, 1))
    assert result.as_numpy("sum").tolist() == [15, 51]


def every_datatype(client: Any) -> None:
    arrays = {
        name: np.array([[0, 1], [100, 7]]).astype(utils.triton_to_np_dtype(name))
        for name in ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP32", "FP64")
    }
    arrays["FP16"] = np.array([[0.5, -1], [65504, 6e-8]], np.float16)
    arrays["BF16"] = np.array([[0.1, -3e38], [1, 1e-38]], ml_dtypes.bfloat16)
    arrays["BYTES"] = np.array([[b"\xff\0", b""], [b"text", "ä".encode()]], object)
    result = client.infer("everything", [tensor(name, array) for name, array in arrays.items()])
    for name, array in arrays.items():
        found = result.as_numpy(name)
        assert found.tolist() == array.tolist(), name
        assert found.dtype == array.dtype, name
    arrays["BYTES"] = np.array([[b"no", b""], [b"text", "ä".encode()]], object)
    plain = [name for name in arrays if name not in ("FP16", "BF16")]
    given = [tensor(name, array, binary=name not in plain) for name, array in arrays.items()]
    result = client.infer("everything", given, outputs=[triton.InferRequestedOutput(n, False) for n in plain])
    for name in plain:
        found = result.as_numpy(name).tolist()
        assert found == ([["no", ""], ["text", "ä"]] if name == "BYTES" else arrays[name].tolist()), name


def compressed(client: Any) -> None:
    for coding in ("gzip", "deflate"):
        result = client.infer(
            "sums", sums(), request_compression_algorithm=coding, response_compression_algorithm=coding
        )
        assert result.as_numpy("sum").tolist() == [15, 51], coding


def many_at_once(client: Any) -> None:
    waiting = [client.async_infer("sums", sums(x=np.full((1, 2, 3), number, np.float32))) for number in range(30)]
    assert [one.get_result().as_numpy("sum").tolist() for one in waiting] == [[6 * number] for number in range(30)]
    failing = client.async_infer("sums", sums()[:1])
    refused(failing.get_result, "400", "'k'")


def pictures(client: Any) -> None:
    files = [Path(path).read_bytes() for path in sys.argv[3:]]
    for array in (strings(*files), strings(*files).reshape(-1, 1)):
        scores = client.infer("colours", [tensor("image", array)]).as_numpy("scores")
        assert scores.dtype == np.float32
        assert scores.argmax(axis=1).tolist() == [0, 2]
    refused(lambda: client.infer("colours", [tensor("image", strings(b"no picture"))]), "415", "not an image")


def classes(client: Any) -> None:
    files = [Path(path).read_bytes() for path in sys.argv[3:]]
    for binary in (True, False):
        wanted = [triton.InferRequestedOutput("scores", binary_data=binary, class_count=2)]
        found = client.infer("colours", [tensor("image", strings(*files))], outputs=wanted).as_numpy("scores")
        texts = [text.decode() if binary else text for text in found[:, 0].tolist()]
        assert found.shape == (2, 2)
        assert [text.split(":")[1:] for text in texts] == [["0", "red"], ["2", "blue"]]
        assert all(float(text.split(":")[0]) > 0.9 for text in texts)


def raw_picture(client: Any) -> None:
    """As the client's examples send a request that they have made themselves."""
    red = Path(sys.argv[3]).read_bytes()
    response = client._post("v2/models/colours/infer", red, {"Inference-Header-Content-Length": 0}, None)
    result = triton.InferResult(response, False)
    assert result.as_numpy("scores").argmax() == 0


def repository(client: Any) -> None:
    index = client.get_model_repository_index()
    assert {entry["name"]: entry["state"] for entry in index}["lengths"] == "READY"
    client.unload_model("lengths")
    assert not client.is_model_ready("lengths")
    index = client.get_model_repository_index()
    assert {entry["name"]: entry["state"] for entry in index}["lengths"] == "UNAVAILABLE"
    given = [tensor("text", strings(b"abc"))]
    refused(lambda: client.infer("lengths", given), "404", "Servable not found")
    client.load_model("lengths")
    assert client.is_model_ready("lengths")
    assert client.infer("lengths", given).as_numpy("reversed").tolist() == [b"cba"]
    refused(lambda: client.load_model("nothing"), "404", "Could not find any versions of model nothing")
    refused(lambda: client.load_model("lengths", config="{}"), "400", "config are not taken")


def statistics(client: Any) -> None:
    before = client.get_inference_statistics("sums", "1")["model_stats"][0]
    client.infer("sums", sums())
    (after,) = client.get_inference_statistics("sums")["model_stats"]
    grown = [found["inference_stats"]["success"]["count"] for found in (before, after)]
    assert grown[1] == grown[0] + 1
    assert after["inference_count"] == before["inference_count"] + 2
    every = client.get_inference_statistics()["model_stats"]
    assert {"sums", "colours"} <= {entry["name"] for entry in every}


def errors(client: Any) -> None:
    refused(lambda: client.infer("nothing", sums()), "404", "Servable not found")
    refused(lambda: client.infer("sums", sums()[:1]), "400", "'k'")
    wide = [tensor("x", X.astype(np.float64)), sums()[1]]
    refused(lambda: client.infer("sums", wide), "400", "expected float32")
    refused(lambda: client.infer("sums", sums(x=X * 1000)), "500", "that is too much")
    wanted = [triton.InferRequestedOutput("nothing")]
    refused(lambda: client.infer("sums", sums(), outputs=wanted), "400", "no output 'nothing'")
    refused(lambda: client.infer("sums", sums(), timeout=1), "504", "")
    assert client.infer("sums", sums()).as_numpy("sum").tolist() == [15, 51]


CHECKS = (
    health, metadata, infer_bytes, infer_json, infer_both, every_datatype, compressed, many_at_once, pictures, classes,
    raw_picture, repository, statistics, errors,
)  # fmt: skip

if __name__ == "__main__":
    with triton.InferenceServerClient(sys.argv[1], concurrency=8, network_timeout=30.0) as open_client:
        {check.__name__: check for check in CHECKS}[sys.argv[2]](open_client)
