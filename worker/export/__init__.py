"""A model in one form -> the same in another, proved equal on real pictures.

Nouns: *form* (`savedmodel`, `litert`, `onnx`, ...), *destination* (where the new form goes, once it is proved), and
*difference* (the largest between the answers of two forms).
"""
