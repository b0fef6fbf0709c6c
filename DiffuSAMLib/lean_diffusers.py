"""diffusers' UNet and scheduler, imported without what neither of them uses.

Imported plainly they load all of diffusers' transformers, with these SciPy's statistics, and PyTorch's compiler: most
of the time in which a process becomes ready to segment. What is left out here can be imported later as ever.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec

_COMPILER = "torch._dynamo"
# A few of their modules are needed; to run the packages themselves is to load them all.
_PACKAGES = ("diffusers.models.transformers", "diffusers.models.unets")


@contextmanager
def _without_unused() -> Iterator[None]:
    """Within, the compiler cannot be imported, which diffusers allows for, and the packages are empty."""
    before = set(sys.modules)
    if _COMPILER not in before:
        sys.modules[_COMPILER] = None  # type: ignore[assignment]
    try:
        for package in _PACKAGES:
            if package not in before and (spec := find_spec(package)):
                sys.modules[package] = module_from_spec(spec)
        yield
    except Exception:
        # Half imported as they may be, they must not be found.
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "diffusers":
                del sys.modules[name]
        raise
    finally:
        for name in {_COMPILER, *_PACKAGES} - before:
            sys.modules.pop(name, None)


try:
    with _without_unused():
        from diffusers.models.unets.unet_2d import UNet2DModel
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler
except Exception:  # a release of diffusers that cannot do without
    from diffusers.models.unets.unet_2d import UNet2DModel
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

__all__ = ["DDIMScheduler", "UNet2DModel"]
