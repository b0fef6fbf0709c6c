"""The wish to end a training that runs in another thread."""

from __future__ import annotations

import threading


class StopRequest:
    """Asks a training in another thread to end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keep: bool | None = None

    def press(self, *, keep: bool) -> None:
        """Ends the training after the present iteration; with `keep`, its prior is written."""
        with self._lock:
            self._keep = keep

    def clear(self) -> None:
        """Before the next training."""
        with self._lock:
            self._keep = None

    @property
    def pressed(self) -> bool:
        with self._lock:
            return self._keep is not None

    def __call__(self) -> bool:
        """Whether to end and keep the prior.

        Raises:
            KeyboardInterrupt: To end without.
        """
        with self._lock:
            if self._keep is False:
                raise KeyboardInterrupt
            return self._keep is not None
