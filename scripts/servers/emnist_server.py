"""Usage: emnist_server.py MODEL PORT BATCH   The EMNIST post's Flask server: one session, {"instances"} -> {"predictions"}.

Its graphs took a fixed number of rows: one file for 1, another for 128. There is only the first, so its shapes are changed.
"""

import sys

import numpy as np
import tensorflow as tf
from flask import Flask, jsonify, request

path, port, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def made() -> tuple[tf.compat.v1.Session, str, str]:
    """-> a session with the graph for `batch` rows, and the names of what goes in and comes out."""
    with tf.compat.v1.Session(graph=tf.Graph()) as first:
        saved = tf.compat.v1.saved_model.load(first, ["serve"], path)
        graph = first.graph.as_graph_def()
    signature = saved.signature_def["predict_images"]
    fed, scores = signature.inputs["images"].name, signature.outputs["scores"].name
    for node in graph.node:
        if node.op == "Placeholder":
            node.attr["shape"].shape.dim[0].size = batch
        if node.op == "Const" and node.name.endswith("/Shape"):
            shape = tf.make_ndarray(node.attr["value"].tensor).copy()
            if shape.shape == (2,) and shape[0] == 1:
                shape[0] = batch
                node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(shape))
        node.attr.pop("_output_shapes", None)
    changed = tf.Graph()
    with changed.as_default():
        tf.import_graph_def(graph, name="")
    return tf.compat.v1.Session(graph=changed), fed, scores


app = Flask(__name__)
session, fed, scores = made()


@app.post("/")
def predict():  # type: ignore[no-untyped-def]
    rows = np.array(request.get_json(force=True)["instances"], np.float32)
    return jsonify({"predictions": session.run(scores, {fed: rows}).tolist()})


app.run("127.0.0.1", port, threaded=True)
