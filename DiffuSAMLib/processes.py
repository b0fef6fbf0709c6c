"""The processes that train one prior together, as `accelerate launch` or `torchrun` start them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from .devices import choose_device
from .errors import InputError


class Processes:
    """This process among those that train one prior together; usually it is alone.

    All of them hold the same weights and know which slices make a batch. Each draws its share of these and computes their
    losses, and the gradients are added up, so that the outcome is that of one process with the whole batch.

    Args:
        index: Of this process; 0 is the main one, the only one that writes and tells.
        count: How many there are.
        device: Where this one computes; None where the user's choice decides.
    """

    def __init__(self, index: int = 0, count: int = 1, *, device: torch.device | None = None) -> None:
        self.index, self.count, self.device = index, count, device

    @classmethod
    def launched(cls, device: str = "auto") -> Processes:
        """Those that a launcher has started; one alone where none has.

        Args:
            device: As in `choose_device`; "auto" gives each process a GPU of its own where there are any.

        Raises:
            InputError: There are several, and Hugging Face accelerate is not installed, or more than GPUs.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        try:
            from accelerate import PartialState
        except ImportError as error:
            raise InputError(
                "Several processes need the package accelerate.",
                hint="Install it with pip install accelerate.",
            ) from error
        if device == "auto" or device.startswith("cuda"):
            _take_own_gpu()
        # Metal has no way for processes to talk to each other.
        state = PartialState(cpu=not choose_device(device).startswith("cuda"))
        return cls(state.process_index, state.num_processes, device=state.device)

    @property
    def main(self) -> bool:
        return self.index == 0

    def share(self, count: int) -> slice:
        """Which of `count` things are this process's."""
        return slice(count * self.index // self.count, count * (self.index + 1) // self.count)

    def sum(self, part: Tensor) -> Tensor:
        """The sum of what all processes have; gradients flow to this process's part only."""
        if self.count == 1:
            return part
        from accelerate.utils import reduce

        own = part.detach()
        return part + (reduce(own, "sum") - own)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Adds up the gradients of all processes, in one message."""
        if self.count == 1:
            return
        from accelerate.utils import reduce

        # A process without a present organ in its slices has no gradients for some of the weights.
        parameters = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        whole = reduce(torch.cat([gradient.flatten() for gradient in gradients]), "sum")
        for gradient, part in zip(gradients, whole.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def agree(self, values: Sequence[float]) -> list[float]:
        """The main process's values, in all of them: clocks and people are only asked there."""
        if self.count == 1:
            return list(values)
        from accelerate.utils import broadcast

        told = torch.tensor(values, dtype=torch.float64, device=self.device)
        return [float(value) for value in broadcast(told)]

    def wait(self) -> None:
        """Until all have come here."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()


def is_main() -> bool:
    """Whether this is the process that tells, without starting to talk to the others."""
    return os.environ.get("RANK", "0") == "0"


def _take_own_gpu() -> None:
    """This process's GPU, not everybody's first one, is to show whether it can compute.

    Raises:
        InputError: There are GPUs, but none is left for this process.
    """
    if not torch.cuda.is_available():
        return
    number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= count:
        raise InputError(
            f"Each process needs a GPU of its own, and this computer has {count}.",
            hint="Start no more processes than that, or use --device cpu.",
        )
    torch.cuda.set_device(number)
