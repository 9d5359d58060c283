"""The model that is to be exported, read as a worker would read it, with names that every form can keep.

Of Keras models, which name their tensors by chance, the picture is called `image` and the classes `scores`, as training
writes them; SavedModels keep their names, since clients use them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from ..config import WorkerSettings
from ..errors import ConfigurationError
from ..loading import ImageUse, as_image_model
from ..runtimes import RUNTIMES, Opened, Options, installed, open_source
from ..source import Source, find_source
from ..tensor import Signature, TensorSpec

THREADS = 1  # what is measured beside the comparison is one core


@dataclass
class Original:
    """`functions`: signature -> a Function of tensorflow_graphs, to be converted, for as long as `keep` lives: they do not
    hold their variables. `opened` runs the same.
    """

    source: Source
    functions: dict[str, Any]
    opened: Opened
    use: ImageUse
    keep: Any

    @property
    def signature(self) -> Signature:
        """The one that is meant when none is said."""
        return self.opened.signatures[self.opened.default]


def read_original(model: str, settings: WorkerSettings) -> Original:
    """`model`: what a worker's --model takes. Blocks for seconds. Raises ConfigurationError saying what to do."""
    source = find_source(model, settings)
    readable = RUNTIMES["tensorflow"][1]
    if source.kind not in readable:
        raise ConfigurationError(
            f"{source}: a model of the kind {source.kind} cannot be exported: what TensorFlow reads can, that is "
            f"{', '.join(sorted(readable))}"
        )
    options = Options.of(settings, THREADS)
    if not installed("tensorflow"):
        open_source("tensorflow", source, options)  # says what is missing
    from ..runtimes import tensorflow, tensorflow_graphs

    tensorflow.settle(THREADS)
    with tensorflow_graphs.quiet():
        graphs = tensorflow_graphs.read(source, options)
    opened: Opened = tensorflow.from_graphs(graphs, options)
    use = as_image_model(source, opened, settings)
    if settings.labels and use.card is None:
        raise ConfigurationError(f"--labels: there is nothing to name: {use.reason}")
    chance = source.kind in ("keras", "application") and use.card is not None
    wanted = {use.input: "image", use.scores: "scores"} if chance else {}
    renamed = {name: _renamed(one, wanted) for name, one in opened.signatures.items()}
    opened.signatures = renamed
    for name, function in graphs.functions.items():
        function.signature = renamed[name]
    wanted = {name: _plain(new) for name, new in wanted.items()}
    use = replace(
        use, input=wanted.get(use.input, _plain(use.input)), scores=wanted.get(use.scores, _plain(use.scores))
    )
    return Original(source, graphs.functions, opened, use, graphs.keep)


def _renamed(signature: Signature, wanted: dict[str, str]) -> Signature:
    def rename(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        new = tuple(replace(spec, name=_plain(wanted.get(spec.name, spec.name))) for spec in specs)
        if len({spec.name for spec in new}) < len(new):
            raise ConfigurationError(f"tensors of the same name, as far as that can be kept: {[s.name for s in specs]}")
        return new

    return replace(signature, inputs=rename(signature.inputs), outputs=rename(signature.outputs))


def _plain(name: str) -> str:
    """As far as TensorFlow takes it for an argument: letters, digits and _, the first no digit."""
    return re.sub(r"^(?=\d)", "_", re.sub(r"\W", "_", name))
