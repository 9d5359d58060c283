"""The `traceparent` field: which trace a request belongs to, and who in it called. Sans-io.

Source: W3C Trace Context, https://www.w3.org/TR/trace-context/ section 3.2 (fields, later versions), 4 (processing).
`tracestate` goes with it as it came, except where the traceparent is none: then it belongs to nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
SAMPLED, RANDOM = 0x01, 0x02  # of the flags; the others have no meaning yet, and are not passed on
NOBODY = b"0" * 32, b"0" * 16


@dataclass(frozen=True, slots=True)
class TraceContext:
    """`trace_id`: of 128 bits. `parent_id`: of 64 bits, the span that called. `flags`: SAMPLED and RANDOM, or neither."""

    trace_id: int
    parent_id: int
    flags: int = 0

    @property
    def sampled(self) -> bool:
        """Whether the caller records this trace."""
        return bool(self.flags & SAMPLED)

    def encode(self) -> bytes:
        """The value, in version 00."""
        return b"00-%032x-%016x-%02x" % (self.trace_id, self.parent_id, self.flags & (SAMPLED | RANDOM))


def decode(value: bytes | None) -> TraceContext | None:
    """None for what a new trace must be started instead of: anything that is not exactly as the rules say."""
    found = TRACEPARENT.fullmatch(value) if value else None
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    # ff is forbidden; version 00 ends with the flags, a later one may go on behind a dash.
    if version == b"ff" or (more is not None and version == b"00") or trace_id == NOBODY[0] or parent_id == NOBODY[1]:
        return None
    return TraceContext(int(trace_id, 16), int(parent_id, 16), int(flags, 16) & (SAMPLED | RANDOM))
