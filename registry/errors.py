"""What can go wrong at the registry. `status` is the HTTP status its JSON face answers with."""

from __future__ import annotations


class RegistryError(Exception):
    """Base of every error the registry raises on purpose."""

    status = 500


class WireError(RegistryError):
    """The peer sent something that is not a row, or a row too large: its connection is closed."""

    status = 400


class InvalidInstance(RegistryError):
    """A registration that cannot be served: no name, no port, an address that is not allowed."""

    status = 400


class ConfigurationError(RegistryError):
    """No restart can cure it: a bad option, a port that is taken."""


class RegistryUnreachable(RegistryError):
    """Nobody answers at the registry's address."""

    status = 503


class StoreUnavailable(RegistryError):
    """The engine that holds the registrations does not answer in time; ours is written when it is back."""

    status = 503


class StoreRefused(RegistryError):
    """The engine answers, and will not have it: not allowed, too large, somebody else's."""

    status = 403
