"""Settings of `fairway export`. What says how a model is read is called as it is for a worker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from ...registry.options import option
from ..config import WorkerSettings
from ..errors import ConfigurationError
from ..offline import Reading
from .forms import FORMS, Form

if TYPE_CHECKING:
    from ..runtimes.difference import Bounds

FormName = Literal["savedmodel", "litert", "litert-dynamic", "litert-int8", "onnx"]


@dataclass(frozen=True)
class ExportSettings(Reading):
    to: FormName = option(
        "savedmodel",
        "the new form: savedmodel, litert (float32), litert-dynamic (weights in 8 bits), litert-int8 (all in 8 bits, for "
        "the Edge TPU and microcontrollers as well), or onnx",
        env="FAIRWAY_EXPORT_TO",
    )
    out: str = option(
        "", "where it goes: a file, or for savedmodel a folder that gets the next version", env="FAIRWAY_EXPORT_OUT"
    )
    images: str = option(
        "",
        "pictures to compare by, a folder or a file; litert-int8 is calibrated with them",
        env="FAIRWAY_EXPORT_IMAGES",
    )
    count: int = option(100, "how many of them, spread over all that there are", env="FAIRWAY_EXPORT_COUNT")
    tolerance: float | None = option(
        None,
        "largest difference that is allowed; by default "
        + ", ".join(f"{name} {form.largest:g}" for name, form in FORMS.items()),
        env="FAIRWAY_EXPORT_TOLERANCE",
    )
    overwrite: bool = option(False, "replace a file that is there", env="FAIRWAY_EXPORT_OVERWRITE")
    force: bool = option(
        False,
        "put it in place although it differs too much; the exit status tells all the same",
        env="FAIRWAY_EXPORT_FORCE",
    )

    def __post_init__(self) -> None:
        if not self.out:
            raise ConfigurationError("--out is required: where the exported model goes")
        if self.count < 1:
            raise ConfigurationError("--count: at least one picture is needed")
        if self.to == "litert-int8" and not self.images:
            raise ConfigurationError(
                "--to litert-int8 needs --images: a folder with some 100 pictures of the kind the model will see; "
                "the range of every layer is measured with them"
            )

    @property
    def form(self) -> Form:
        return FORMS[self.to]

    @property
    def bounds(self) -> Bounds:
        """What the new form is held to."""
        from ..runtimes.difference import Bounds

        largest = self.form.largest if self.tolerance is None else self.tolerance
        return Bounds(largest, self.form.best, self.form.exact)

    def reading(self, model: str) -> WorkerSettings:
        """How a worker would be told to read `model`."""
        return replace(self.served(), model=model)
