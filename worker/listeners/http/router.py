"""Which handler a request means: paths by their whole text first, then patterns, in the order they were given.

What patterns found is remembered for a while: clients ask for the same few paths again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from re import Pattern
from typing import NamedTuple
from urllib.parse import unquote

from ...errors import NotFound
from .errors import MethodNotAllowed
from .message import Route

HINT = "send an image with POST to /"
REMEMBERED = 256  # paths, with their methods


class Matched(NamedTuple):
    """`groups`: of the pattern, percent-decoded."""

    route: Route
    groups: dict[str, str]


class Router:
    """Of two routes with the same method and path, the first is taken."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self._exact: dict[str, dict[str, Matched]] = {}
        self._patterns: list[tuple[Pattern[str], dict[str, Route]]] = []
        self._matched = lru_cache(REMEMBERED)(self._match)
        for route in routes:
            if isinstance(route.path, str):
                self._exact.setdefault(route.path, {}).setdefault(route.method, Matched(route, {}))
            else:
                same = [methods for pattern, methods in self._patterns if pattern == route.path]
                if not same:
                    self._patterns.append((route.path, {}))
                    same = [self._patterns[-1][1]]
                same[0].setdefault(route.method, route)

    def find(self, method: str, path: str) -> Matched:
        """Raises NotFound or MethodNotAllowed, saying what there is. What answers GET answers HEAD."""
        wanted = "GET" if method == "HEAD" else method
        allowed: set[str] = set()
        exact = self._exact.get(path)
        if exact is not None:
            found = exact.get(wanted)
            if found is not None:
                return found
            allowed |= exact.keys()
        matched, others = self._matched(wanted, path)
        if matched is not None:
            return matched
        allowed |= others
        if allowed <= {"PUT"}:  # a name that an upload may bear is not yet a place
            raise NotFound(f"nothing at {path}: {HINT}; /docs shows what else there is")
        names = tuple(sorted(allowed | ({"HEAD"} if "GET" in allowed else set())))
        remedy = HINT if path == "/" else f"{path} takes {', '.join(names)}"
        raise MethodNotAllowed(f"{method} will not do here: {remedy}", names)

    def _match(self, method: str, path: str) -> tuple[Matched | None, frozenset[str]]:
        """By the patterns; or the methods that would have matched."""
        allowed: set[str] = set()
        for pattern, methods in self._patterns:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            route = methods.get(method)
            if route is not None:
                groups = {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
                return Matched(route, groups), frozenset()
            allowed |= methods.keys()
        return None, frozenset(allowed)
