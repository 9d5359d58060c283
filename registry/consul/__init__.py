"""Consul's HTTP API as one face of the catalog: its JSON, both ways, so that it serves our own server and a client of it.

`definitions` are checks, a `registration` is what a worker says about itself, `entries` are what readers are told,
`durations` are written as Go writes them.
"""

from .definitions import as_check, destination, path_of
from .durations import format_duration, parse_duration
from .entries import Look, catalog_services, read_entry
from .registration import as_registration, joined, read_check_registration, read_registration

__all__ = [
    "Look",
    "as_check",
    "as_registration",
    "catalog_services",
    "destination",
    "format_duration",
    "joined",
    "parse_duration",
    "path_of",
    "read_check_registration",
    "read_entry",
    "read_registration",
]
