"""`diffusam models`: what weights there are, and getting, keeping and giving them."""

from __future__ import annotations

import argparse
from pathlib import Path

from .progress import Progress, ProgressEvent


def add_models_options(command: argparse.ArgumentParser) -> None:
    """The actions list, download, import, export and remove."""
    command.set_defaults(run=_models)
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="what there is, which labels a prior gives, and where it lies")
    for action, text in (
        ("download", "fetch weights from Meta"),
        ("remove", "delete weights from the cache"),
    ):
        actions.add_parser(action, help=text).add_argument("name")
    importing = actions.add_parser("import", help="take a file that was downloaded elsewhere")
    importing.add_argument("file", type=Path)
    importing.add_argument("--name", help="of an imported prior (default: its own)")
    exporting = actions.add_parser("export", help="copy a prior to a file, for another computer")
    exporting.add_argument("name")
    # No Path, which would not tell "elsewhere/" from "elsewhere".
    exporting.add_argument("file", help="the file, or a folder, which is made if it is not there")


def _models(arguments: argparse.Namespace, progress: Progress) -> None:
    from . import catalogue
    from .prior_files import read_header
    from .weights_folders import cache_folder

    if arguments.action == "list":
        for weights in catalogue.list_weights():
            entry = weights.entry
            print(
                f"{entry.name:20} {entry.kind:9} {weights.status:15} {entry.bytes / 1e6:6.0f} MB  {entry.licence}"
            )
            if entry.kind == "prior" and weights.status not in ("damaged", "not downloaded"):
                labels = read_header(weights.path).labels
                print(f"    labels: {', '.join(f'{label.value} {label.name}' for label in labels)}")
        print(f"Cache folder: {cache_folder()}")
    elif arguments.action == "download":
        print(
            catalogue.fetch(
                arguments.name, progress=lambda done, total: progress(ProgressEvent("download", done, total))
            )
        )
    elif arguments.action == "import":
        print(f"Imported as {catalogue.import_file(arguments.file, name=arguments.name).name}.")
    elif arguments.action == "export":
        print(catalogue.export_file(arguments.name, arguments.file))
    else:
        catalogue.remove(arguments.name)
        print(f"Removed {arguments.name}.")
