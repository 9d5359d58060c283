"""One door, three manners: forward, address, redirect.

Nouns: a `Route` is what a request's method and path ask for; `head` decides which fields pass; `Forwarder` carries an
upload to a worker and the answer back, trying another worker where nothing is lost by it; `Proxy` is the shell. It knows
workers only by what a resolver tells, and forwards bytes it does not understand.
"""

from .config import ProxySettings
from .server import Proxy

__all__ = ["Proxy", "ProxySettings"]
