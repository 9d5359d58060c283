"""A model in one form -> the same in another, proved equal on real pictures.

Nouns: *form* (`savedmodel`, `litert`, `onnx`, ...), and *difference* (the largest between the answers of two forms).
"""
