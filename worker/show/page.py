"""Facts -> text for people: a heading, then a block for each thing that is known. Needs nothing but the facts."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

WIDTH = 110  # columns of a page's prose
NAMED = 8  # labels that are written out
TABLED = 24  # classes whose confusion is a table; of more the commonest mistakes are told
MISTAKES = 10
TESTED = {False: "tested", True: "tested (of the original, which this form was made from)"}

ALONE = ("python", "torchscript", "torchexport")  # kinds that one engine alone reads: there is nothing to try
KINDS = {
    "savedmodel": "SavedModel",
    "frozen": "frozen GraphDef",
    "keras": "Keras file",
    "application": "Keras application",
    "tflite": "LiteRT file",
    "onnx": "ONNX file",
    "ir": "OpenVINO IR",
    "torchscript": "TorchScript file",
    "torchexport": "torch.export file",
    "python": "Python",
}


def page(facts: Mapping[str, Any]) -> str:
    """See facts.py for what they are."""
    blocks = [
        ("", _heading(facts)),
        ("versions", _versions(facts)),
        ("signatures", _signatures(facts)),
        ("pictures", _pictures(facts)),
        ("labels", _labels(facts)),
        (TESTED[facts["of_original"]], _test(facts["test"]) if facts["test"] else []),
        ("warm-up", _warmup(facts["warmup"])),
        ("--runtime auto", _remembered(facts["remembered"], facts["kind"])),
    ]
    texts = [
        "\n".join([name, *(f"  {line}".rstrip() for line in lines)] if name else lines)
        for name, lines in blocks
        if lines
    ]
    return "\n\n".join(texts)


def size(count: int) -> str:
    """Bytes, in decimal units."""
    amount, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{count} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"


def shape(dimensions: Sequence[int | None] | None) -> str:
    """`(?, 224, 224, 3)`: ? is any number."""
    if dimensions is None:
        return "of any shape"
    if len(dimensions) == 1:
        return f"({'?' if dimensions[0] is None else dimensions[0]},)"
    return f"({', '.join('?' if n is None else str(n) for n in dimensions)})"


def _heading(facts: Mapping[str, Any]) -> list[str]:
    parts = [KINDS[facts["kind"]]]
    if facts["bytes"]:
        parts.append(size(facts["bytes"]) + (f" in {facts['files']} files" if facts["files"] > 1 else ""))
    lines = [f"{facts['model']}, version {facts['version']}: {', '.join(parts)}", facts["path"] or facts["target"]]
    for text in (facts["description"], facts["data"]):
        lines += _prose(text)
    if facts["remark"]:
        lines += _prose(f"Shown by {facts['runtime']}, as its own engine refuses it: {facts['remark']}")
    return lines


def _versions(facts: Mapping[str, Any]) -> list[str]:
    if len(facts["versions"]) < 2:
        return []
    return table(
        [
            [str(one["version"]), KINDS[one["kind"]], size(one["bytes"]), one["path"]]
            + (["<- this one"] if one["version"] == facts["version"] else [])
            for one in facts["versions"]
        ],
        right=(0, 2),
    )


def _signatures(facts: Mapping[str, Any]) -> list[str]:
    lines = []
    for signature in facts["signatures"]:
        match signature["batch"]:
            case 0:
                items = "any number of items a call"
            case None:
                items = "one item a call, which has no dimension that counts"
            case count:
                items = f"always {count} item{'s' if count > 1 else ''} a call"
        default = ", the default" if signature["name"] == facts["default"] and len(facts["signatures"]) > 1 else ""
        lines.append(f"{signature['name']} ({signature['method']}; {items}{default})")
        rows = [
            [way, f"{tensor['name']}:", f"{tensor['dtype']} {shape(tensor['shape'])}"]
            for way, side in (("in", "inputs"), ("out", "outputs"))
            for tensor in signature[side]
        ]
        lines += [f"  {line}" for line in table(rows)]
    return lines


def _pictures(facts: Mapping[str, Any]) -> list[str]:
    pictures = facts["pictures"]
    if pictures is None:
        return _prose(f"It is served for tensors, not for pictures: {facts['reason']}")
    activation = "" if pictures["activation"] == "none" else f", {pictures['activation']} applied"
    return [
        *pictures["steps"],
        f"fed to {pictures['input']}; scores are read from {pictures['scores']}{activation}",
        f"as {facts['card']} says" if facts["card"] else "as its kind, its signature and the options say",
    ]


def _labels(facts: Mapping[str, Any]) -> list[str]:
    labels = facts["labels"]
    if not labels:
        return []
    if labels == [f"class {i}" for i in range(len(labels))]:
        return _prose(
            f"{len(labels)} classes, called by number; name them with --labels FILE, in the model card, or in labels.txt "
            "beside the model"
        )
    named = [*labels[:NAMED], *(["..."] if len(labels) > NAMED else [])]
    comma = "; " if any("," in label for label in named) else ", "  # ImageNet's are lists of names themselves
    return _prose(f"{len(labels)}: {comma.join(named)}")


def _test(test: Mapping[str, Any]) -> list[str]:
    """The card is anybody's: what is not as accuracy.Report writes it is left out."""
    lines = []
    match test:
        case {"top_1": int() | float() as top_1, "photos": int() as photos}:
            line = f"{top_1:.1%} of {photos} photos were called rightly"
            match test.get("interval_95"):
                case [int() | float() as low, int() | float() as high]:
                    line += f" (95 % interval: {low:.1%} to {high:.1%})"
            lines.append(line)
    confusion = test.get("confusion_rows_are_truth")
    if not isinstance(confusion, dict) or not all(isinstance(row, dict) for row in confusion.values()):
        return lines
    names = list(confusion)
    if len(names) <= TABLED:
        lines.append("what it is (rows), and what it was called:")
        return lines + _confusion(names, confusion)
    wrong = [(n, a, b) for a, row in confusion.items() for b, n in row.items() if a != b and isinstance(n, int) and n]
    wrong.sort(key=lambda mistake: -mistake[0])
    if wrong:
        lines.append("the commonest mistakes:")
        lines += table([[str(n), f"{a} called {b}"] for n, a, b in wrong[:MISTAKES]], right=(0,))
    return lines


def _confusion(names: Sequence[str], confusion: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Columns bear the classes' names if there is room, else their numbers."""
    heads = [*names]
    rows = [[name, *(str(confusion[name].get(other, 0)) for other in names)] for name in names]
    if sum(len(name) + 2 for name in names) + max(map(len, names), default=0) > WIDTH:
        heads = [str(i) for i in range(1, len(names) + 1)]
        rows = [[f"{head} {name}", *row[1:]] for head, name, row in zip(heads, names, rows, strict=True)]
    return table([["", *heads], *rows], right=range(1, len(names) + 1))


def _warmup(warmup: Mapping[str, Any] | None) -> list[str]:
    if warmup is None:
        return []
    if "requests" in warmup:
        return [f"{warmup['requests']} requests of {warmup['file']}"]
    lines = _prose(f"{len(warmup['pictures'])} pictures of the card: {', '.join(warmup['pictures'])}")
    return lines + [f"{name} is not there" for name in warmup["lacking"]]


def _remembered(found: Sequence[Mapping[str, Any]], kind: str) -> list[str]:
    if not found:
        return [] if kind in ALONE else ["nothing is remembered: engines have not been tried with these settings"]
    lines = []
    for one in found:
        when = datetime.fromtimestamp(one["when"]).strftime("%Y-%m-%d %H:%M")
        lines.append(
            f"{one.get('chosen')}: {one.get('because')}; precision {one.get('precision')}, found out on {when}"
        )
        rows = [_tried(name, tried, name == one.get("reference")) for name, tried in one["tried"].items()]
        lines += [f"  {line}" for line in table(rows, right=(1,))]
    return lines


def _tried(name: str, tried: Mapping[str, Any], reference: bool) -> list[str]:
    rates = {int(items): rate for items, rate in tried.get("rates", {}).items()}
    best = max(rates, key=lambda items: rates[items], default=0)
    speed = [f"{rates[best]:,.0f} items/s", f"in batches of {best}"] if rates else ["", ""]
    if reason := tried.get("reason"):
        return [name, *speed, f"passed over: {reason}"]
    return [
        name,
        *speed,
        "defines the answers" if reference else f"largest difference {tried.get('difference', 0):.1g}",
    ]


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Columns two spaces apart, those in `right` flush right."""
    columns = max(map(len, rows), default=0)
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(columns)]
    return [
        "  ".join(cell.rjust(widths[i]) if i in right else cell.ljust(widths[i]) for i, cell in enumerate(row)).rstrip()
        for row in rows
    ]


def _prose(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)
