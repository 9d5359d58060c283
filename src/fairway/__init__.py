"""Fairway: serve image models from many workers, behind one door or none."""

__version__ = "0.1.0"
