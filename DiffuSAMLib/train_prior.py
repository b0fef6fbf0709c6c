"""Trains a prior: `Slicer --python-script train_prior.py`, `PythonSlicer train_prior.py` or `python train_prior.py`.

The options are those of `diffusam train`. This is a script, not to be imported: as a name in the package,
`DiffuSAMLib.train_prior` is the function that trains.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `diffusam train` with the arguments given, by default those of the process.

    Returns:
        The exit code, after whatever error: 1 is a fault of this program.
    """
    try:
        # Not beside the package, where its modules would be found without it.
        folder = Path(__file__).resolve().parent
        sys.path[:] = [
            str(folder.parent),
            *(path for path in sys.path if not path or Path(path).resolve() != folder),
        ]
        from DiffuSAMLib.cli import main as run

        return run(["train", *(sys.argv[1:] if argv is None else argv)])
    except SystemExit as end:
        # How the options' parser ends for help.
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except KeyboardInterrupt:
        return 130
    except BaseException:
        traceback.print_exc()
        return 1


def end(code: int) -> None:
    """Ends the process; in 3D Slicer the application, which would stay open after its script otherwise."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "flush"):
            stream.flush()
    slicer = sys.modules.get("slicer")
    if slicer is not None and hasattr(slicer, "app"):
        slicer.util.exit(code)
    else:
        sys.exit(code)


if __name__ == "__main__":
    end(main())
