"""The command `fairway`: one subcommand a role. Each is imported only when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

COMMANDS = {
    "launch": (".launch:launch", "run a whole cluster on this machine"),
    "registry": (".registry.__main__:registry", "run the registry: who is alive, and where"),
    "proxy": (".proxy.__main__:proxy", "run the proxy: forward, hand out addresses, or redirect"),
    "worker": (".worker.__main__:worker", "serve one model"),
    "classify": (".client.__main__:classify", "upload images and print what they show"),
    "evaluate": (".client.evaluating.__main__:evaluate", "accuracy of a served model on labelled pictures"),
    "bench": (".client.bench.__main__:bench", "load on a served model: throughput and latency"),
    "retrain": (".worker.training.__main__:retrain", "folders of photos -> a model on a pretrained backbone"),
    "train": (".worker.training.__main__:train", "folders of photos -> a small model from scratch"),
    "label": (".worker.label:label", "what a model sees in image files, without a server"),
    "show": (".worker.show:show", "a model's signatures, shapes, labels and preprocessing"),
    "export": (".worker.export.__main__:export", "a model in another form, proved equal"),
    "lookup": (".registry.__main__:lookup", "print the addresses of a service"),
    "services": (".registry.__main__:services", "list all that is registered"),
    "watch": (".registry.__main__:watch", "print every change, until interrupted"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    line = list(sys.argv[1:] if arguments is None else arguments)
    if line and line[0] in COMMANDS:
        module, _, name = COMMANDS[line[0]][0].partition(":")
        command: Callable[[Sequence[str]], int] = getattr(import_module(module, __package__), name)
        return command(line[1:])
    if line and line[0] in ("--version", "-V"):
        from . import __version__

        print(f"fairway {__version__}")
        return 0
    asked = not line or line[0] in ("--help", "-h", "help")
    out = sys.stdout if asked else sys.stderr
    if not asked:
        print(f"fairway: there is no command {line[0]!r}\n", file=out)
    print(
        "usage: fairway COMMAND [options]\n\nServes image models from many workers, behind one door or none.\n",
        file=out,
    )
    for command_name, (_, about) in COMMANDS.items():
        print(f"  {command_name:10} {about}", file=out)
    print(
        "\nfairway COMMAND --help tells more, and the name by which an option is read from the environment, as most are.",
        file=out,
    )
    return 0 if asked else 2


if __name__ == "__main__":
    sys.exit(main())
