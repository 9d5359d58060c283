"""Doors of a worker: bytes -> wire -> engine -> wire -> bytes."""
