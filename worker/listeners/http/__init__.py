"""HTTP: one port, one server, and a file for each protocol spoken over it."""

from .server import HttpListener

__all__ = ["HttpListener"]
