"""From folders of photos to a served model.

Nouns: `Photo` (a file and its class), `Split` (train, held out, test), the *recipe* (every number that shapes a run),
the *network* (a small residual net), and the *report* (accuracy with its interval, confusion matrix) that ends in the
model card. Needs the `tensorflow` extra.
"""
