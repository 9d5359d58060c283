"""`Server-Timing`: how much of an answer's time was the proxy's own, for a browser's developer tools. Sans-io.

Source: https://www.w3.org/TR/server-timing/. It is a list: a line of ours behind the worker's own lines adds to it.
"""

from __future__ import annotations


def line(own: float) -> bytes:
    """`own`: seconds from the request's head to the answer's, without those in which the worker had it. A whole line."""
    return b"Server-Timing: proxy;dur=%.3f\r\n" % (own * 1000)
