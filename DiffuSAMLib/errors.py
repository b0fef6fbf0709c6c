"""The errors a user can meet: one sentence that says what is wrong and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .printable_text import printable


class DiffuSAMError(Exception):
    """An error with a message for the user.

    What is not UTF-8 in it, as a name of a file may be, is escaped: few tables and consoles take it.

    Args:
        message: What is wrong, as one sentence.
        hint: What to do about it, as one sentence; may be empty.
    """

    code = "error"
    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message, self.hint = printable(message), printable(hint)
        super().__init__(f"{self.message} {self.hint}".strip())

    def fields(self) -> dict[str, Any]:
        """What a program is told of it: `code`, `message` and `hint`, and what else an error of its kind knows."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


class InputError(DiffuSAMError):
    """An image, label map or option that cannot be used as given."""

    code = "input"


class UnfinishedRunError(InputError):
    """An unfinished training is in the way of a new one."""

    code = "unfinished"


class FailedCasesError(DiffuSAMError):
    """Some cases of a cohort could not be segmented; the others are complete.

    Args:
        table: File that says of each case how it ended.
        cases: How many there are.
        failed: How many of them failed.
    """

    code = "cases"

    def __init__(self, table: Path, *, cases: int, failed: int) -> None:
        super().__init__(
            f"{failed} of {cases} cases could not be segmented.", hint=f"The table {table} says why."
        )
        self.table = table
        self.cases = cases
        self.failed = failed

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), "table": self.table, "cases": self.cases, "failed": self.failed}


class WeightsError(DiffuSAMError):
    """A backbone or prior file that is missing, damaged or made for something else."""

    code = "weights"


class OutputError(DiffuSAMError):
    """A result that could not be written, for example for want of space."""

    code = "output"


class OutOfMemoryError(DiffuSAMError):
    """The device or the machine has too little memory for the job."""

    code = "oom"
