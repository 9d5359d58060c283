"""Usage: flask_server.py PORT   The article's server: Flask's own, one request a thread; TF Serving's JSON form as well."""

import sys

import numpy as np
from flask import Flask, jsonify, request
from model import answer, decoded, loaded

app, model = Flask(__name__), loaded()


@app.post("/")
def classify() -> bytes:
    return answer(model(decoded(request.files["data"].read()))[0])


@app.post("/predict")
def predict():  # type: ignore[no-untyped-def]
    return jsonify({"predictions": model(np.array(request.get_json()["instances"], np.float32)).tolist()})


app.run("127.0.0.1", int(sys.argv[1]), threaded=True)
