"""Protocol Buffers' messages, built from tables of field numbers: no generated files, and nobody else's.

They live in a descriptor pool of their own. The public packages of these protocols (tensorflow, tritonclient, kserve)
all register the same names in the default pool, and two of them in one process break each other; ours disturb none.

A table is a text. `package NAME` begins what belongs to it; then, one a line (an indented line goes on):

    Message: 1 name type, 2 name type[], 3 name {type} |oneof     (number, name, type; {type}: a map from string)
    enum Name: 0 NAME, 1 NAME
    service Name: Method Request Response, Method stream Request stream Response

A type is a scalar, a message or enum of the same package, or a full name. Nested messages are named `Outer.Inner`.
All is proto3: numbers in lists are packed. Fields that a table leaves out are kept unread, as the format has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

from . import inference_messages, serving_messages, tensorflow_messages

Field = descriptor_pb2.FieldDescriptorProto

SCALARS = {
    "bool": Field.TYPE_BOOL,
    "bytes": Field.TYPE_BYTES,
    "double": Field.TYPE_DOUBLE,
    "float": Field.TYPE_FLOAT,
    "int32": Field.TYPE_INT32,
    "int64": Field.TYPE_INT64,
    "string": Field.TYPE_STRING,
    "uint32": Field.TYPE_UINT32,
    "uint64": Field.TYPE_UINT64,
}
TABLES = (tensorflow_messages.TABLE, serving_messages.TABLE, inference_messages.TABLE)
ELSEWHERE = {"google.protobuf.Any": any_pb2.DESCRIPTOR, "google.protobuf.Int64Value": wrappers_pb2.DESCRIPTOR}


@dataclass(frozen=True)
class Method:
    """One method of a service. `path` is its HTTP/2 path; `streams`: both sides send as many messages as they like."""

    path: str
    request: Any
    response: Any
    streams: bool


def build(*tables: str) -> Any:
    """Tables -> a DescriptorPool that holds their messages, enums and services. Raises ValueError for a faulty one."""
    pool = descriptor_pool.DescriptorPool()
    for foreign in ELSEWHERE.values():
        pool.AddSerializedFile(foreign.serialized_pb)
    owners = {name: descriptor.name for name, descriptor in ELSEWHERE.items()}  # full name -> its file
    enums: set[str] = set()
    sections = [section for table in tables for section in _sections(table)]
    for package, lines in sections:
        for kind, name, _ in lines:
            if kind != "service":
                owners[f"{package}.{name}"] = _file_name(package)
            if kind == "enum":
                enums.add(f"{package}.{name}")
    for package, lines in sections:
        pool.Add(_file(package, lines, owners, enums))
    return pool


@cache
def pool() -> Any:
    """The one that holds every table of this folder."""
    return build(*TABLES)


@cache
def message(name: str) -> Any:
    """The class of the message with this full name, e.g. `tensorflow.serving.PredictRequest`. Raises KeyError."""
    return message_of(pool(), name)


def message_of(pool: Any, name: str) -> Any:
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


@cache
def enum(name: str) -> dict[str, int]:
    """The values of the enum with this full name, by their names. Raises KeyError."""
    return {value.name: value.number for value in pool().FindEnumTypeByName(name).values}


@cache
def methods(service: str) -> dict[str, Method]:
    """What the service with this full name can be asked for, by the methods' names. Raises KeyError."""
    return {
        method.name: Method(
            f"/{service}/{method.name}",
            message(method.input_type.full_name),
            message(method.output_type.full_name),
            method.client_streaming,
        )
        for method in pool().FindServiceByName(service).methods
    }


# -- tables -> descriptors ----------------------------------------------------------------------------------------

Line = tuple[str, str, list[str]]  # message, enum or service; its name; what it has


def _sections(table: str) -> Iterator[tuple[str, list[Line]]]:
    """The packages of a table, each with its lines."""
    joined = table.replace("\n    ", " ").splitlines()
    package, lines = "", list[Line]()
    for line in filter(None, map(str.strip, joined)):
        if line.startswith("package "):
            if lines:
                yield package, lines
            package, lines = line.removeprefix("package "), []
            continue
        title, _, rest = line.partition(":")
        kind, _, name = title.rpartition(" ")
        lines.append((kind or "message", name, [part.strip() for part in rest.split(",") if part.strip()]))
    yield package, lines


def _file_name(package: str) -> str:
    return package.replace(".", "/") + ".proto"


def _file(package: str, lines: list[Line], owners: dict[str, str], enums: set[str]) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=_file_name(package), package=package, syntax="proto3")
    messages: dict[str, Any] = {}

    def place(name: str) -> Any:
        """The descriptor of a message of this file; a new one goes into the one around it."""
        if name not in messages:
            outer, _, inner = name.rpartition(".")
            messages[name] = (place(outer).nested_type if outer else file.message_type).add(name=inner)
        return messages[name]

    def full(name: str) -> str:
        found = next((n for n in (f"{package}.{name}", name) if n in owners), None)
        if found is None:
            raise ValueError(f"{package}: {name} is in no table")
        if owners[found] != file.name and owners[found] not in file.dependency:
            file.dependency.append(owners[found])
        return found

    for kind, name, parts in lines:
        match kind:
            case "message":
                descriptor = place(name)
                for part in parts:
                    _add_field(descriptor, f".{package}.{name}", part, full, enums)
            case "enum":
                outer, _, inner = name.rpartition(".")
                enum = (place(outer) if outer else file).enum_type.add(name=inner)
                for part in parts:
                    number, value = part.split()
                    enum.value.add(name=value, number=int(number))
            case "service":
                service = file.service.add(name=name)
                for part in parts:
                    method, *ends = part.split()
                    request, response = (f".{full(end)}" for end in ends if end != "stream")
                    streams = "stream" in ends
                    service.method.add(
                        name=method,
                        input_type=request,
                        output_type=response,
                        client_streaming=streams,
                        server_streaming=streams,
                    )
            case _:
                raise ValueError(f"{package}: {kind} {name} is neither a message nor an enum nor a service")
    return file


def _add_field(descriptor: Any, scope: str, part: str, full: Any, enums: set[str]) -> None:
    number, name, kind, *oneof = part.split()
    field = descriptor.field.add(name=name, number=int(number), label=Field.LABEL_OPTIONAL)
    if oneof:
        names = [one.name for one in descriptor.oneof_decl]
        choice = oneof[0].removeprefix("|")
        if choice not in names:
            descriptor.oneof_decl.add(name=choice)
            names.append(choice)
        field.oneof_index = names.index(choice)
    if kind.startswith("{"):  # a map is a list of entries, each a message of its own
        entry = descriptor.nested_type.add(name="".join(word.title() for word in name.split("_")) + "Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=Field.LABEL_OPTIONAL, type=Field.TYPE_STRING)
        _set_type(entry.field.add(name="value", number=2, label=Field.LABEL_OPTIONAL), kind[1:-1], full, enums)
        field.label, field.type, field.type_name = Field.LABEL_REPEATED, Field.TYPE_MESSAGE, f"{scope}.{entry.name}"
        return
    if kind.endswith("[]"):
        field.label = Field.LABEL_REPEATED
    _set_type(field, kind.removesuffix("[]"), full, enums)


def _set_type(field: Any, kind: str, full: Any, enums: set[str]) -> None:
    if kind in SCALARS:
        field.type = SCALARS[kind]
        return
    name = full(kind)
    field.type = Field.TYPE_ENUM if name in enums else Field.TYPE_MESSAGE
    field.type_name = f".{name}"
