"""From folders of photos to a served model.

Nouns: `Photo` (a file and its class), `Split` (train, held out, test), the *backbone* (a pretrained network without its
last layer), *bottlenecks* (its features of photos, kept in a file), the *head* (the new last layer), the *recipe* (every
number that shapes a run), and the *report* (accuracy with its interval, confusion matrix) that ends in the model card.
`fairway retrain` teaches a head, `fairway train` a small network from scratch. Needs the `training` extra.
"""
