"""Settings of `fairway retrain`: retrain.py's flags that still make sense, under their own names, and a few more."""

from __future__ import annotations

from dataclasses import dataclass

from ...registry.options import option
from ..errors import ConfigurationError

ALL = -1


@dataclass(frozen=True)
class RetrainSettings:
    image_dir: tuple[str, ...] = option((), "folders of photos, comma-separated, each with one sub-folder a class")
    out: str = option("", "folder of the model; each run adds the next numbered version to it")
    backbone: str = option(
        "keras:MobileNetV2",
        "the pretrained network below the new layer: keras:NAME, or a .keras or .h5 file, with its top or without",
    )
    weights: str = option("imagenet", "weights of keras:NAME: a file, or imagenet, which Keras downloads")
    earlier_layers: bool = option(
        True, "learn from averages of the backbone's earlier maps as well, not of its last alone"
    )
    testing_percentage: float = option(10.0, "of the photos; a LISTING.tsv with `val` or `test` rows decides instead")
    validation_percentage: float = option(10.0, "of the photos: they choose which state of the training is kept")
    how_many_training_steps: int = option(0, "batches to learn from; 0: as many as --epochs says")
    epochs: int = option(0, "times each photo is learnt from; 0: 20, or 10 with --random-...")
    learning_rate: float = option(0.002, "peak of the optimizer's rate (AdamW); it decays to zero along a cosine")
    weight_decay: float = option(6.0, "how strongly weights are drawn to zero (AdamW)")
    label_smoothing: float = option(0.1, "share of the truth that is spread over all classes")
    train_batch_size: int = option(100, "photos a step")
    test_batch_size: str = option("-1", "photos the test looks at, the first of a seeded shuffle; -1: all")
    validation_batch_size: str = option("-1", "photos each validation looks at; -1: all")
    eval_step_interval: int = option(100, "steps between two lines of accuracy")
    bottleneck_dir: str = option("", "folder of the cached features; empty: .bottlenecks in --out")
    flip_left_right: bool = option(True, "learn from the mirrored photos as well; not for letters and digits")
    random_crop: float = option(0.0, "percent of the photo that may be cut away at its margins, at random")
    random_scale: float = option(0.0, "percent by which photos are enlarged, at random")
    random_brightness: float = option(0.0, "percent by which photos become lighter or darker, at random")
    print_misclassified_test_images: bool = option(False, "name the test photos that are called something else")
    summaries_dir: str = option("", "folder for TensorBoard's summaries; needs fairway[summaries] to be looked at")
    output_graph: str = option("", "also write the article's frozen graph to this file (JPEG bytes in)")
    output_labels: str = option("", "labels file of --output-graph; empty: output_labels.txt beside it")
    fine_tune: int = option(0, "train the last N blocks of the backbone as well, after the new layer")
    fine_tune_epochs: int = option(5, "epochs of --fine-tune")
    fine_tune_rate: float = option(1e-4, "learning rate of --fine-tune")
    resume: bool = option(False, "go on where an interrupted run with the same settings stopped")
    seed: int = option(7, "seed of all that is random")
    input_size: int = option(0, "pixels a side that the backbone gets; 0: its own size")
    input_resize: str | None = option(None, "how photos meet that size: crop, squash or pad")
    input_channels: str | None = option(None, "RGB or BGR; for files that Fairway does not know")
    input_mean: str | None = option(None, "subtracted from pixels 0..255; for files that Fairway does not know")
    input_std: str | None = option(None, "what the difference is divided by; for files that Fairway does not know")

    def __post_init__(self) -> None:
        if not self.image_dir:
            raise ConfigurationError("--image-dir is required: a folder with one sub-folder of photos a class")
        if not self.out:
            raise ConfigurationError("--out is required: the folder of the model, e.g. models/flowers")
        if self.testing_percentage + self.validation_percentage >= 100:
            raise ConfigurationError(
                "--testing-percentage and --validation-percentage leave nothing to learn from: "
                f"together they are {self.testing_percentage + self.validation_percentage:g}"
            )
        if self.label_smoothing >= 1:
            raise ConfigurationError(f"--label-smoothing: {self.label_smoothing:g} is too much; below 1 is needed")
        for name in ("train_batch_size", "eval_step_interval"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"--{name.replace('_', '-')}: at least 1 is needed")
        if self.fine_tune and self.fine_tune_epochs < 1:
            raise ConfigurationError("--fine-tune-epochs: at least 1 is needed")
        if self.random_crop >= 100 or self.random_brightness > 100:
            raise ConfigurationError("--random-crop is below 100 percent, and --random-brightness at most 100")
        if self.output_labels and not self.output_graph:
            raise ConfigurationError("--output-labels goes with --output-graph")
        limit(self.test_batch_size, "--test-batch-size")
        limit(self.validation_batch_size, "--validation-batch-size")
        self.pixels()

    def pixels(self) -> dict[str, object]:
        """What the user said of the input, in the model card's words; only what was said."""
        said: dict[str, object] = {"resize": self.input_resize, "channels": self.input_channels}
        for name, text in (("mean", self.input_mean), ("std", self.input_std)):
            if text is not None:
                try:
                    said[name] = [float(number) for number in text.split(",")]
                except ValueError as error:
                    raise ConfigurationError(f"--input-{name}: {text!r} is not a number, or three") from error
        return {key: value for key, value in said.items() if value is not None}


def limit(text: str, flag: str) -> int | None:
    """How many photos are looked at; None for all, which retrain.py calls -1."""
    try:
        number = int(text)
    except ValueError as error:
        raise ConfigurationError(f"{flag}: {text!r} is not a whole number") from error
    if number < 1 and number != ALL:
        raise ConfigurationError(f"{flag}: {number} will not do: a number of photos is needed, or -1 for all")
    return None if number == ALL else number
