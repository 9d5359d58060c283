"""Labelled pictures: what a model learns from, and what it is judged by.

Nouns: `Photo` (a file, its class, and the part of the set it belongs to). Folders with one sub-folder a class are read
by `folder`, MNIST's files by `idx`.
"""
