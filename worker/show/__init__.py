"""`fairway show`: what a model is, takes, gives and is called, whatever its format. TensorFlow's saved_model_cli, for all.

Nouns: *facts* (what is known of one version of a model, fit for JSON), *page* (the same for people), *steps* (what becomes
of a picture before the model gets it, in words), *remembered* (what `--runtime auto` found out). Nothing is written.
"""

from .command import show as show
