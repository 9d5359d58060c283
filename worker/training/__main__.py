"""`fairway retrain` and `fairway train`: folders of photos -> the next version of a model."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ...registry.options import add_options, read_options
from ...registry.process import EXIT_CONFIGURATION
from ..errors import ConfigurationError, WorkerError
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
    given = parser.parse_args([dashed(argument) for argument in arguments])

    def work() -> int:
        settings = read_options(RetrainSettings, given)
        for folder in settings.image_dir:  # TensorFlow takes seconds to be imported
            if not Path(folder).is_dir():
                raise ConfigurationError(f"--image-dir {folder}: no such folder")
        with needing_tensorflow():
            from .retraining import retrain
        with Stopping() as stop:
            retrain(settings, stop)
        return 0

    return _reported(work)


def train(arguments: Sequence[str]) -> int:
    """Returns the exit status, as `retrain` does."""

    def work() -> int:
        from .small import train_command

        return train_command(arguments)

    return _reported(work)


def dashed(argument: str) -> str:
    """retrain.py's flags have underscores: --image_dir is --image-dir."""
    flag, equals, value = argument.partition("=")
    return flag.replace("_", "-") + equals + value if flag.startswith("--") else argument


def _reported(work: Callable[[], int]) -> int:
    """What is known to go wrong is a line on stderr, never a traceback."""
    logging.basicConfig(level=os.environ.get("FAIRWAY_LOG_LEVEL", "INFO").upper(), format="fairway: %(message)s")
    try:
        return work()
    except ConfigurationError as error:
        print(f"fairway: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_CONFIGURATION
    except Interrupted as error:
        print(f"fairway: interrupted: {error}; the same command with --resume goes on from there", file=sys.stderr)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (OSError, WorkerError) as error:  # a full disk, a folder that was taken away or a photo that broke meanwhile
        print(f"fairway: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(retrain(sys.argv[1:]))
