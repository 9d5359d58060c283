"""`fairway retrain` and `fairway train`: folders of photos -> the next version of a model."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...registry.options import add_options, read_options
from ..errors import ConfigurationError
from ..offline import dashed, ended, log_from
from .config import RetrainSettings
from .extra import needing_tensorflow
from .stopping import Interrupted, Stopping

EXIT_INTERRUPTED = 130  # 128 + SIGINT, whichever signal it was


def retrain(arguments: Sequence[str]) -> int:
    """Returns the exit status: 78 for what the user must change, 130 after Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="fairway retrain",
        description="Teaches a pretrained network new classes: one sub-folder of photos a class. Writes OUT/N/, a "
        "SavedModel with its labels and model card, which `fairway worker --model OUT` serves.",
        epilog="Try it: fairway retrain --image-dir flowers/ --out models/flowers. Ctrl-C keeps what was computed; "
        "--resume goes on.",
    )
    add_options(parser, RetrainSettings)
    given = parser.parse_args(dashed(arguments))
    with _reported() as status:
        settings = read_options(RetrainSettings, given)
        for folder in settings.image_dir:  # TensorFlow takes seconds to be imported
            if not Path(folder).is_dir():
                raise ConfigurationError(f"--image-dir {folder}: no such folder")
        with needing_tensorflow():
            from .retraining import retrain
        with Stopping() as stop:
            retrain(settings, stop)
    return status[-1]


def train(arguments: Sequence[str]) -> int:
    """Returns the exit status, as `retrain` does."""
    with _reported() as status:
        from .small import train_command

        status.append(train_command(dashed(arguments)))
    return status[-1]


@contextlib.contextmanager
def _reported() -> Iterator[list[int]]:
    """As `ended`; what was interrupted says how it goes on."""
    log_from("INFO", "fairway: %(message)s")
    with ended() as status:
        try:
            yield status
        except Interrupted as error:
            print(f"fairway: interrupted: {error}; the same command with --resume goes on from there", file=sys.stderr)
            status.append(EXIT_INTERRUPTED)


if __name__ == "__main__":
    sys.exit(retrain(sys.argv[1:]))
