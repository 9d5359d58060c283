"""`fairway label`: what a model sees in image files, without a server. TensorFlow's label_image, for every kind of model.

Nouns: *labeller* (a loaded model, asked for one picture at a time), *page* (how its answers look).

A picture goes the way of an upload: the same functions decode it, feed it and name its scores, on the engine that a worker
would have chosen. So the scores are a worker's, to the last digit that is printed.
"""

from .command import label as label
