"""Modal dialogs: without a person they would stop everything, so a test has to answer them beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from PySide6 import QtWidgets

Answer = Callable[..., Any]
_answers: list[Answer] = []


def modal(what: str, *arguments: Any) -> Any:
    """What the test answers to a dialog.

    Raises:
        RuntimeError: no test expected a dialog.
    """
    if not _answers:
        text = " ".join(str(a) for a in arguments if isinstance(a, str))
        raise RuntimeError(f"{what} opens a modal dialog that nobody answers: {text}")
    return _answers[-1](what, *arguments)


@contextmanager
def answering(answer: Answer) -> Iterator[None]:
    """Within it, `answer(what, *arguments)` stands for the user.

    `what` is for example `QMessageBox.exec` (first argument: the box) or `QFileDialog.getOpenFileName`.
    """
    _answers.append(answer)
    try:
        yield
    finally:
        _answers.remove(answer)


def _described(dialog: QtWidgets.QDialog) -> str:
    return dialog.text if isinstance(dialog, QtWidgets.QMessageBox) else dialog.windowTitle


def install() -> None:
    def run(self: QtWidgets.QDialog) -> Any:
        return modal(f"{type(self).__name__}.exec", _described(self), self)

    for cls in (QtWidgets.QDialog, QtWidgets.QMessageBox, QtWidgets.QProgressDialog, QtWidgets.QMenu):
        cls.exec_ = cls.exec = (
            run if cls is not QtWidgets.QMenu else lambda self, *a: modal("QMenu.exec", self, *a)
        )

    statics = {
        QtWidgets.QFileDialog: (
            "getOpenFileName",
            "getOpenFileNames",
            "getSaveFileName",
            "getExistingDirectory",
        ),
        QtWidgets.QMessageBox: ("question", "information", "warning", "critical", "about"),
        QtWidgets.QInputDialog: ("getText", "getInt", "getDouble", "getItem"),
    }
    for cls, names in statics.items():
        for name in names:
            what = f"{cls.__name__}.{name}"
            setattr(cls, name, staticmethod(lambda *arguments, what=what: modal(what, *arguments)))
