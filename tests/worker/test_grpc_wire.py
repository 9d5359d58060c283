"""What calls and answers are made of, in both directions, beside the public packages' own messages."""

from __future__ import annotations

import subprocess
from typing import Any

import numpy as np
import pytest

pytest.importorskip("google.protobuf", reason="protobuf is not installed")
from fairway.worker.errors import BadRequest
from fairway.worker.tensor import Signature, TensorSpec
from fairway.worker.wire import openinference_grpc as oip
from fairway.worker.wire import predict
from fairway.worker.wire.openinference import InferRequest, InferResponse, RequestedOutput
from fairway.worker.wire.predict import Call, Wanted
from fairway.worker.wire.protobuf import message

from .foreign import triton_python

ModelInferRequest = message("inference.ModelInferRequest")
SAMPLES = {
    "a": np.array([[1.5, -2.5]], "float32"),
    "b": np.array([3, 2**40], "int64"),
    "c": np.array([b"x", b"", b"\xff\0"], object),
    "d": np.array([[True], [False]]),
}


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left.keys() == right.keys() and all(
        (left[n].dtype, left[n].shape, left[n].tolist()) == (right[n].dtype, right[n].shape, right[n].tolist())
        for n in left
    )


@pytest.mark.parametrize(
    "wanted", [Wanted(), Wanted("half", 3, signature="twice"), Wanted("half", label="stable"), Wanted("half", 0)]
)
def test_a_call_of_predict_comes_as_it_was_sent(wanted: Wanted) -> None:
    sent = predict.encode_request(Call(wanted, SAMPLES, ("y",)))
    came = predict.decode_request(type(sent).FromString(sent.SerializeToString()))
    assert (came.wanted, came.outputs) == (wanted, ("y",))
    assert same(dict(came.inputs), SAMPLES)
    answer = predict.encode_response(wanted, SAMPLES)
    version, outputs = predict.decode_response(type(answer).FromString(answer.SerializeToString()))
    assert version == wanted
    assert same(outputs, SAMPLES)


def test_answers_list_their_values_as_tensorflow_serving_does() -> None:
    answer = predict.encode_response(Wanted("half"), {"y": np.array([1, 2], "float32")})
    assert list(answer.outputs["y"].float_val) == [1, 2]
    assert not answer.outputs["y"].tensor_content


def test_no_model_spec_is_told_of() -> None:
    with pytest.raises(BadRequest, match=r"^Missing ModelSpec$"):
        predict.read_wanted(message("tensorflow.serving.PredictRequest")())


def test_examples_with_a_context_are_whole_ones() -> None:
    request = message("tensorflow.serving.ClassificationRequest")
    made = request(input=predict.write_examples([{"x": [1.0, 2.0], "name": "a"}, {"n": [3, -4], "image": b"\xff"}]))
    examples = predict.read_examples(made)
    assert [predict.read_features(one) for one in examples] == [
        {"x": [1.0, 2.0], "name": [b"a"]},
        {"n": [3, -4], "image": [b"\xff"]},
    ]
    shared = request()
    given = shared.input.example_list_with_context
    given.context.features.feature["country"].bytes_list.value.append(b"fr")
    given.examples.extend(made.input.example_list.examples)
    assert predict.read_features(predict.read_examples(shared)[0]) == {
        "x": [1.0, 2.0], "name": [b"a"], "country": [b"fr"]
    }  # fmt: skip
    for empty in (request(), request(input=predict.write_examples([]))):
        with pytest.raises(BadRequest, match=r"^Input is empty\.$"):
            predict.read_examples(empty)


def test_results_of_both_kinds() -> None:
    both = predict.classifications([["a", "b"]], [[0.25, 0.75]])
    assert predict.read_classifications(both) == [[("a", 0.25), ("b", 0.75)]]
    assert predict.read_classifications(predict.classifications(None, [[0.5]])) == [[("", 0.5)]]
    assert predict.read_classifications(predict.classifications([["a"], ["b"]], None)) == [[("a", 0)], [("b", 0)]]
    assert predict.read_regressions(predict.regressions([1.5, 2])) == [1.5, 2]


def test_a_signature_is_told_in_tensorflows_words() -> None:
    inputs = (TensorSpec("x", "float32", (None, 4)), TensorSpec("s", "bytes", None), TensorSpec("h", "bfloat16", ()))
    told = predict.signature_def(Signature("s", inputs, (TensorSpec("y", "uint8", (1,)),), "classify"))
    assert told.method_name == "tensorflow/serving/classify"
    assert {name: info.dtype for name, info in told.inputs.items()} == {"x": 1, "s": 7, "h": 14}
    assert [dim.size for dim in told.inputs["x"].tensor_shape.dim] == [-1, 4]
    assert told.inputs["s"].tensor_shape.unknown_rank
    assert told.outputs["y"].dtype == 4


# -- the Open Inference Protocol --------------------------------------------------------------------------------------


def test_a_call_of_infer_comes_as_it_was_sent() -> None:
    asked = InferRequest(
        SAMPLES,
        (RequestedOutput("y", 3, binary=True), RequestedOutput("z", binary=True)),
        "42",
        {"timeout": 5, "text": "t", "flag": True, "number": 0.5},
    )
    sent = oip.encode_request(asked, "half", "3")
    assert (sent.model_name, sent.model_version) == ("half", "3")
    came = oip.decode_request(ModelInferRequest.FromString(sent.SerializeToString()))
    assert (came.outputs, came.id, came.parameters) == (asked.outputs, asked.id, asked.parameters)
    assert same(came.inputs, SAMPLES)
    answer = oip.encode_response(InferResponse("half", "3", SAMPLES, "42"))
    got = oip.decode_response(type(answer).FromString(answer.SerializeToString()))
    assert (got.model, got.version, got.id) == ("half", "3", "42")
    assert same(got.outputs, SAMPLES)


TRITON = """
import json, sys
import numpy as np
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult, service_pb2
from tritonclient.grpc._utils import _get_inference_request
from tritonclient.utils import np_to_triton_dtype
arrays = {"a": np.array([[1.5, -2.5]], "float32"), "b": np.array([3, 2**40], "int64"),
          "c": np.array([b"x", b"", b"\\xff\\0"], object), "d": np.array([[True], [False]])}
if sys.argv[1] == "ask":
    inputs = []
    for name, array in arrays.items():
        one = InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        one.set_data_from_numpy(array)
        inputs.append(one)
    outputs = [InferRequestedOutput("y", class_count=3)]
    made = _get_inference_request("half", inputs, "3", "42", outputs, 0, False, False, 0, 7, {"p": "q"})
    print(made.SerializeToString().hex())
else:
    result = InferResult(service_pb2.ModelInferResponse.FromString(bytes.fromhex(sys.argv[2])))
    assert result.get_response().model_version == "3"
    for name, array in arrays.items():
        got = result.as_numpy(name)
        assert got.shape == array.shape and got.tolist() == array.tolist(), name
    print("same")
"""


def triton(*words: str) -> str:
    ran = subprocess.run([triton_python(), "-c", TRITON, *words], capture_output=True, text=True, timeout=60)
    assert not ran.returncode, ran.stderr
    return ran.stdout.strip()


def test_what_tritons_client_sends_is_read_and_what_is_answered_it_reads() -> None:
    came = ModelInferRequest.FromString(bytes.fromhex(triton("ask")))
    assert (came.model_name, came.model_version) == ("half", "3")
    request = oip.decode_request(came)
    assert same(request.inputs, SAMPLES)
    assert request.outputs == (RequestedOutput("y", 3, binary=True),)
    assert (request.id, request.parameters) == ("42", {"timeout": 7, "p": "q"})
    answer = oip.encode_response(InferResponse("half", "3", SAMPLES, "42"))
    assert triton("read", answer.SerializeToString().hex()) == "same"


def asked(datatype: str, shape: list[int], raw: bytes | None = None, **contents: Any) -> Any:
    request = ModelInferRequest()
    tensor = request.inputs.add(name="x", datatype=datatype, shape=shape)
    if raw is not None:
        request.raw_input_contents.append(raw)
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    return request


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        (asked("FP32", [1, 2], fp32_contents=[1.5, 2]), np.array([[1.5, 2]], "float32")),
        (asked("FP64", [1], fp64_contents=[0.1]), np.array([0.1])),
        (asked("INT8", [2], int_contents=[-128, 127]), np.array([-128, 127], "int8")),
        (asked("INT32", [1], int_contents=[-(2**31)]), np.array([-(2**31)], "int32")),
        (asked("INT64", [1], int64_contents=[2**62]), np.array([2**62])),
        (asked("UINT8", [2], uint_contents=[0, 255]), np.array([0, 255], "uint8")),
        (asked("UINT64", [1], uint64_contents=[2**63]), np.array([2**63], "uint64")),
        (asked("BOOL", [2], bool_contents=[True, False]), np.array([True, False])),
        (asked("BYTES", [1, 1], bytes_contents=[b"\xff"]), np.array([[b"\xff"]], object)),
        (asked("FP16", [1], b"\0\x3c"), np.array([1], "float16")),
        (asked("BF16", [1], b"\xc0\x3f"), np.array([1.5], "float32")),
        (asked("FP32", [0, 2]), np.empty((0, 2), "float32")),
    ],
)
def test_tensors_come_in_two_forms(request_: Any, wanted: np.ndarray[Any, Any]) -> None:
    assert same(oip.decode_request(request_).inputs, {"x": wanted})


def doubled(request: Any, raw: int) -> Any:
    request.inputs.add(name="x", datatype="FP32", shape=[1])
    request.raw_input_contents.extend([b"1234"] * raw)
    return request


def in_shared_memory() -> Any:
    request = asked("FP32", [1])
    request.inputs[0].parameters["shared_memory_region"].string_param = "r"
    return request


def requested(*names: str, **parameters: Any) -> Any:
    request = asked("FP32", [1], b"1234")
    for name in names:
        output = request.outputs.add(name=name)
        for key, value in parameters.items():
            setattr(output.parameters[key], "string_param" if isinstance(value, str) else "int64_param", value)
    return request


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (ModelInferRequest(), '"inputs" is empty'),
        (asked("FP32", [2], b"1234"), "4 bytes, but FP32 of shape"),
        (asked("FP32", [2], fp32_contents=[1]), "1 values, but shape .2. takes 2"),
        (asked("FP32", [1], fp64_contents=[1]), "given as fp64_contents; expected fp32_contents"),
        (asked("FP32", [1], b"1234", fp32_contents=[1]), "contents beside the raw ones"),
        (asked("FP16", [1], fp32_contents=[1]), "FP16 has no contents of its own"),
        (asked("INT8", [1], int_contents=[128]), "does not fit INT8"),
        (asked("FP31", [1], b"1234"), "datatype is 'FP31'"),
        (asked("FP32", [-1], b"1234"), "from 0 up"),
        (asked("BYTES", [1], b"\5\0\0\0ab"), "ends inside of BYTES"),
        (doubled(asked("FP32", [1], b"1234"), 0), "2 tensors, but raw contents of 1"),
        (doubled(asked("FP32", [1], b"1234"), 1), "'x' is given twice"),
        (in_shared_memory(), "shared memory"),
        (requested("y", "y"), "requested twice"),
        (requested("y", shared_memory_region="r"), "shared memory"),
        (requested("y", classification="3"), "classification is '3'"),
        (requested("y", classification=-1), "classification is -1"),
    ],
)
def test_what_is_no_call_of_infer_is_refused(bad: Any, text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        oip.decode_request(bad)


def test_examples_are_what_tensorflow_parses() -> None:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    request = message("tensorflow.serving.RegressionRequest")(
        input=predict.write_examples([{"x": [1.5, 2.5], "n": 7, "s": "ä"}])
    )
    (example,) = predict.read_examples(request)
    parsed = tf.train.Example.FromString(example)
    assert list(parsed.features.feature["x"].float_list.value) == [1.5, 2.5]
    assert list(parsed.features.feature["n"].int64_list.value) == [7]
    assert parsed.features.feature["s"].bytes_list.value[0].decode() == "ä"


def test_a_request_of_the_real_stubs_is_read() -> None:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2")
    theirs = predict_pb2.PredictRequest(output_filter=["y"])
    theirs.model_spec.name, theirs.model_spec.signature_name, theirs.model_spec.version.value = "half", "s", 2
    for name, array in SAMPLES.items():
        theirs.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    ours = message("tensorflow.serving.PredictRequest").FromString(theirs.SerializeToString())
    came = predict.decode_request(ours)
    assert (came.wanted, came.outputs) == (Wanted("half", 2, signature="s"), ("y",))
    assert same(dict(came.inputs), SAMPLES)
    answer = predict_pb2.PredictResponse.FromString(predict.encode_response(came.wanted, SAMPLES).SerializeToString())
    assert same({name: tf.make_ndarray(proto) for name, proto in answer.outputs.items()}, SAMPLES)
    assert answer.model_spec.version.value == 2
