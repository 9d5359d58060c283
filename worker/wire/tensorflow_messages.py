"""TensorFlow's messages that its serving protocol carries: tensors, examples, signatures; see protobuf.py for the form.

Numbers, names and types are those of tensorflow/core/{framework,example,protobuf}. Left out, and so kept unread in
whatever message carries them: resource handles, variants and composite tensors, which no request can bring, and the
graph itself.
"""

from __future__ import annotations

TABLE = """
package tensorflow

enum DataType: 0 DT_INVALID, 1 DT_FLOAT, 2 DT_DOUBLE, 3 DT_INT32, 4 DT_UINT8, 5 DT_INT16, 6 DT_INT8, 7 DT_STRING,
    8 DT_COMPLEX64, 9 DT_INT64, 10 DT_BOOL, 11 DT_QINT8, 12 DT_QUINT8, 13 DT_QINT32, 14 DT_BFLOAT16, 15 DT_QINT16,
    16 DT_QUINT16, 17 DT_UINT16, 18 DT_COMPLEX128, 19 DT_HALF, 20 DT_RESOURCE, 21 DT_VARIANT, 22 DT_UINT32,
    23 DT_UINT64, 24 DT_FLOAT8_E5M2, 25 DT_FLOAT8_E4M3FN, 26 DT_FLOAT8_E4M3FNUZ, 27 DT_FLOAT8_E4M3B11FNUZ,
    28 DT_FLOAT8_E5M2FNUZ, 29 DT_INT4, 30 DT_UINT4, 31 DT_INT2, 32 DT_UINT2, 33 DT_FLOAT4_E2M1FN

TensorShapeProto.Dim: 1 size int64, 2 name string
TensorShapeProto: 2 dim TensorShapeProto.Dim[], 3 unknown_rank bool
TensorProto: 1 dtype DataType, 2 tensor_shape TensorShapeProto, 3 version_number int32, 4 tensor_content bytes,
    13 half_val int32[], 5 float_val float[], 6 double_val double[], 7 int_val int32[], 8 string_val bytes[],
    9 scomplex_val float[], 10 int64_val int64[], 11 bool_val bool[], 12 dcomplex_val double[], 16 uint32_val uint32[],
    17 uint64_val uint64[], 18 float8_val bytes

BytesList: 1 value bytes[]
FloatList: 1 value float[]
Int64List: 1 value int64[]
Feature: 1 bytes_list BytesList |kind, 2 float_list FloatList |kind, 3 int64_list Int64List |kind
Features: 1 feature {Feature}
Example: 1 features Features

TensorInfo.CooSparse: 1 values_tensor_name string, 2 indices_tensor_name string, 3 dense_shape_tensor_name string
TensorInfo: 1 name string |encoding, 4 coo_sparse TensorInfo.CooSparse |encoding, 2 dtype DataType,
    3 tensor_shape TensorShapeProto
SignatureDef: 1 inputs {TensorInfo}, 2 outputs {TensorInfo}, 3 method_name string, 4 defaults {TensorProto}

package tensorflow.error

enum Code: 0 OK, 1 CANCELLED, 2 UNKNOWN, 3 INVALID_ARGUMENT, 4 DEADLINE_EXCEEDED, 5 NOT_FOUND, 6 ALREADY_EXISTS,
    7 PERMISSION_DENIED, 16 UNAUTHENTICATED, 8 RESOURCE_EXHAUSTED, 9 FAILED_PRECONDITION, 10 ABORTED, 11 OUT_OF_RANGE,
    12 UNIMPLEMENTED, 13 INTERNAL, 14 UNAVAILABLE, 15 DATA_LOSS
"""
