"""The routes as an OpenAPI 3.1 document, and the same as a page for people. Made from the routes: nothing is said twice.

A route's pattern becomes paths: a named group is a parameter, an optional group makes two paths, `a|b` two as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from .message import Route

VERSION = "3.1.0"
ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string", "description": "what was wrong, and what was expected"}},
    "required": ["error"],
}
REFUSALS = (
    "400 not understood, 404 no such model, 413 too large, 415 no image, 429 and 503 come again later, 504 too late"
)
PARAMETERS = {
    "model": "name of a model; /models lists them",
    "version": "number of one of its versions; without it the highest that is served",
    "label": "name of one of its versions",
}


def document(routes: Sequence[Route], title: str, version: str) -> dict[str, Any]:
    """An OpenAPI document: paths by their template, each with its methods. Routes without a summary are left out."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if not route.summary:  # it catches what nothing else answers
            continue
        for template in templates(route.path if isinstance(route.path, str) else route.path.pattern):
            paths.setdefault(template, {}).setdefault(route.method.lower(), _operation(route, template))
    return {
        "openapi": VERSION,
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {"schemas": {"Error": ERROR}},
    }


def page(document: dict[str, Any]) -> str:
    """An OpenAPI document as one HTML page that loads nothing else."""
    rows = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            taken = ", ".join(operation.get("requestBody", {}).get("content", {}))
            given = ", ".join(operation["responses"]["200"]["content"])
            shown = re.sub(r"\{(\w+)\}", r"<em>{\1}</em>", escape(path))
            rows.append(
                f"<tr><td><b>{method.upper()}</b></td><td><code>{shown}</code></td>"
                f"<td>{escape(operation.get('summary', ''))}</td><td>{escape(taken)}</td><td>{escape(given)}</td></tr>"
            )
    title = escape(document["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>'
        "body{font:16px/1.5 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em;color:#222}"
        "table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.4em .8em .4em 0;"
        "border-bottom:1px solid #ddd}code{background:#f4f4f4;padding:.1em .3em}em{color:#06c;font-style:normal}</style>"
        f"<h1>{title}</h1><p>Try it: <code>curl -F data=@daisy.jpg http://HOST:PORT/</code></p>"
        f"<table><tr><th></th><th>path</th><th>what</th><th>takes</th><th>gives</th></tr>{''.join(rows)}</table>"
        f'<p>What is refused is answered with <code>{{"error": "..."}}</code>: {escape(REFUSALS)}.</p>'
        '<p>For programs: <a href="/openapi.json">/openapi.json</a>; the models: <a href="/models">/models</a>.</p>\n'
    )


def _operation(route: Route, template: str) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": route.summary} if route.summary else {}
    names = re.findall(r"\{(\w+)\}", template)
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            | ({"description": PARAMETERS[name]} if name in PARAMETERS else {})
            for name in names
        ]
    if route.method in ("POST", "PUT") and route.takes:
        operation["requestBody"] = {"required": True, "content": {kind: _content(kind) for kind in route.takes}}
    operation["responses"] = {
        "200": {"description": "done", "content": {kind: _content(kind) for kind in route.gives}},
        "default": {
            "description": REFUSALS,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        },
    }
    return operation


def _content(kind: str) -> dict[str, Any]:
    if kind == "multipart/form-data":
        data = {"type": "string", "contentMediaType": "application/octet-stream"}
        return {"schema": {"type": "object", "properties": {"data": data}, "required": ["data"]}}
    return {}


# -- patterns -> templates ------------------------------------------------------------------------------------------


def templates(pattern: str) -> list[str]:
    """A path, or the pattern of one, as OpenAPI's path templates, the shortest first.

    Understood are texts, escaped characters, named groups, and unnamed ones with `|` and `?`. What else a pattern has
    outside of named groups stays as it is, to be seen.
    """
    pattern = re.sub(r"^\(\?[a-z]+\)|^\^|\$$|\\Z$", "", pattern)
    if not re.search(r"[(\\\[]", pattern):
        return [pattern]
    found, at = _alternatives(pattern, 0)
    assert at == len(pattern), pattern
    return sorted(dict.fromkeys(found), key=len)


def _alternatives(pattern: str, at: int) -> tuple[list[str], int]:
    """From `at` up to a closing bracket or the end -> what it may stand for, and where it ends."""
    all_of_them: list[str] = []
    ways = [""]
    while at < len(pattern) and pattern[at] != ")":
        if pattern[at] == "|":
            all_of_them += ways
            ways, at = [""], at + 1
            continue
        piece, at = _piece(pattern, at)
        if pattern[at : at + 1] == "?":
            piece, at = ["", *piece], at + 1
        ways = [way + more for way in ways for more in piece]
    return all_of_them + ways, at


def _piece(pattern: str, at: int) -> tuple[list[str], int]:
    if pattern.startswith("(?P<", at):
        name = pattern[at + 4 : pattern.index(">", at)]
        return [f"{{{name}}}"], _closing(pattern, at) + 1
    if pattern[at] == "(":
        inside = at + 3 if pattern.startswith("(?:", at) else at + 1
        found, end = _alternatives(pattern, inside)
        return found, end + 1
    if pattern[at] == "[":
        end = pattern.index("]", at + 2) + 1
        while pattern[end : end + 1] in ("*", "+"):
            end += 1
        return ["{name}"], end
    if pattern[at] == "\\":
        return [pattern[at + 1]], at + 2
    return [pattern[at]], at + 1


def _closing(pattern: str, at: int) -> int:
    """Where the group that opens at `at` is closed."""
    depth, in_set = 0, False
    escaped: Iterable[int] = (match.end() - 1 for match in re.finditer(r"\\.", pattern))
    skipped = set(escaped)
    for i in range(at, len(pattern)):
        character = pattern[i]
        if i in skipped:
            continue
        if in_set:
            in_set = character != "]"
        elif character == "[":
            in_set = True
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if not depth:
                return i
    raise ValueError(f"a bracket is not closed: {pattern}")
