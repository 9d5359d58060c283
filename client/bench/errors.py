"""What ends a bench before it has begun."""

from __future__ import annotations

from ..errors import ClientError


class Unfit(ClientError):
    """What is at the URL cannot be measured: nobody, no door of Fairway's, or none of the pictures is taken."""

    status = 502
