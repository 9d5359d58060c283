"""An evaluation in words and tables, and the same facts for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...worker.accuracy import Report, wilson
from .evaluation import Evaluation, Outcome

MATRIX = 20  # classes; a wider table does not fit a screen: then the worst confusions are named
WORST = 15
SHORT = 14  # characters of a class's name


def text(evaluation: Evaluation) -> str:
    """Accuracy, classes, confusions, latencies, errors; ends without a line feed."""
    report = evaluation.report()
    blocks = ["\n".join(_headline(evaluation, report))]
    if report.total:
        blocks.append(class_table(report))
        blocks.append(confusions(report))
        blocks.append(_latencies(evaluation))
    return "\n\n".join(block for block in blocks if block)


def share(correct: int, total: int) -> str:
    """`84.7 % (127 of 150; 95 % interval 78.0 to 89.6 %)`."""
    low, high = wilson(correct, total)
    return f"{correct / total:.2%} ({correct} of {total}; 95 % interval {100 * low:.1f} to {100 * high:.1f} %)".replace(
        "%", " %", 1
    )


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """mean, p50, p90, p99 and max; NumPy's default, linear between two."""
    p50, p90, p99 = np.percentile(milliseconds, (50, 90, 99)).tolist()
    values = {"mean": float(np.mean(milliseconds)), "p50": p50, "p90": p90, "p99": p99, "max": max(milliseconds)}
    return {name: round(value, 3) for name, value in values.items()}


def class_table(report: Report) -> str:
    """Of the classes that occur: how many, how many right, recall and precision; then what else answers named."""
    classes = [one for one in report.classes if one.total]
    width = max(len("class"), *(len(_short(one.label)) for one in classes))
    lines = [f"{'class':{width}}      n  right  recall  precision"]
    for one in classes:
        recall, precision = (_percent(value) for value in (one.recall, one.precision))
        lines.append(f"{_short(one.label):{width}}  {one.total:5}  {one.correct:5}  {recall:>6}  {precision:>9}")
    others = sorted((one for one in report.classes if one.called and not one.total), key=lambda one: -one.called)
    if others:
        named = [f"{_short(one.label)} {one.called}" for one in others[:WORST]] + ["..."] * (len(others) > WORST)
        lines.append(f"answers that named no class of these: {', '.join(named)}")
    return "\n".join(lines)


def confusions(report: Report) -> str:
    """The matrix, rows are the truth; of many classes the most frequent mistakes instead. Empty where there are none."""
    report = report.occurring()
    mistakes = report.mistakes()
    if not mistakes:
        return ""
    if len(report.labels) > MATRIX:
        lines = [f"the most frequent mistakes, of {sum(count for *_, count in mistakes)}:"]
        lines += [f"{count:5}  {_short(truth)} called {_short(name)}" for truth, name, count in mistakes[:WORST]]
        return "\n".join(lines)
    names = [_short(name) for name in report.labels]
    rows = [(name, row) for name, row in zip(names, report.confusion, strict=True) if any(row)]
    left = max(len("truth"), *(len(name) for name, _ in rows))
    columns = zip(*report.confusion, strict=True)
    cells = [max(len(name), len(str(max(column)))) for name, column in zip(names, columns, strict=True)]
    lines = [
        f"{'truth':{left}}  " + "  ".join(f"{name:>{n}}" for name, n in zip(names, cells, strict=True)) + "   called"
    ]
    for name, row in rows:
        shown = "  ".join(f"{count or '.':>{n}}" for count, n in zip(row, cells, strict=True))
        lines.append(f"{name:{left}}  {shown}")
    return "\n".join(lines)


def examples(outcomes: Sequence[Outcome]) -> str:
    """A line each: what it is, what it was called."""
    names = max((len(outcome.example.name) for outcome in outcomes), default=0)
    truths = max((len(outcome.example.truth) for outcome in outcomes), default=0)
    lines = []
    for outcome in outcomes:
        example = outcome.example
        if outcome.prediction is None:
            said = f"{outcome.kind}: {outcome.error}"
        else:
            said = f"{outcome.prediction.label} {outcome.prediction.score:.3f}" + ("" if outcome.right else "   WRONG")
        lines.append(f"{example.name:{names}}  {example.truth:{truths}}  called {said}")
    return "\n".join(lines)


def as_json(evaluation: Evaluation, asked: dict[str, Any]) -> dict[str, Any]:
    """`asked`: what was measured, and of whom. `latency_ms` is of those answered."""
    report = evaluation.report()
    low, high = wilson(report.correct, report.total)
    answered = evaluation.answered
    return {
        **asked,
        "examples": len(evaluation.outcomes) + evaluation.missing,
        "answered": len(answered),
        "failed": len(evaluation.failed),
        "missing": evaluation.missing,
        "stopped": evaluation.stopped,
        "seconds": round(evaluation.seconds, 3),
        "right": report.correct,
        "accuracy": None if math.isnan(report.accuracy) else report.accuracy,
        "interval_95": [round(low, 6), round(high, 6)],
        "right_among_5": report.top_5,
        "right_among_own_classes": evaluation.among(),
        "latency_ms": percentiles([one.milliseconds for one in answered]) if answered else None,
        "errors": dict(evaluation.errors()),
        "classes": {
            one.label: {"n": one.total, "right": one.correct, "recall": one.recall, "precision": one.precision}
            for one in report.classes
        },
        "confusion": {"labels": report.labels, "rows_are_truth": report.confusion},
        "answers": [_answer(outcome) for outcome in evaluation.outcomes],
    }


def _answer(outcome: Outcome) -> dict[str, Any]:
    example = outcome.example
    if outcome.prediction is None:
        return {"example": example.name, "truth": example.truth, "kind": outcome.kind, "error": str(outcome.error)}
    return {
        "example": example.name,
        "truth": example.truth,
        "right": outcome.right,
        "prediction": list(outcome.prediction),
        "milliseconds": round(outcome.milliseconds, 3),
    }


def _headline(evaluation: Evaluation, report: Report) -> list[str]:
    lines = []
    if report.total:
        lines.append(f"accuracy  {share(report.correct, report.total)}")
        if report.top_5 is not None:
            lines.append(f"top-5     {share(report.top_5, report.total)}")
        if (among := evaluation.among()) is not None:
            lines.append(f"among the data's {len(evaluation.labels)} classes only: {share(among, report.total)}")
        if not any(one.called for one in report.classes if one.label in evaluation.labels):
            called = ", ".join(dict.fromkeys(name for _, name, _ in report.mistakes()[:5]))
            lines.append(f"No answer named any of the data's classes: is it the right model? It said {called}, ...")
    else:
        lines.append("accuracy  nothing was answered")
    lines += [f"{count} of {len(evaluation.outcomes)}: {kind}" for kind, count in evaluation.errors().most_common()]
    if evaluation.missing:
        lines.append(
            f"{evaluation.missing} of {len(evaluation.outcomes) + evaluation.missing} are missing: {evaluation.stopped}"
        )
    return lines


def _latencies(evaluation: Evaluation) -> str:
    found = percentiles([one.milliseconds for one in evaluation.answered])
    rate = len(evaluation.answered) / evaluation.seconds if evaluation.seconds else 0.0
    said = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
    of = f", of the {len(evaluation.answered)} answered" if evaluation.failed else ""
    return f"latency   {said} ms{of}\nspeed     {rate:.1f} answers/s, {evaluation.seconds:.1f} s in all"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _short(name: str) -> str:
    return name if len(name) <= SHORT else f"{name[: SHORT - 1]}…"
