"""What went wrong and what to do about it, in the words of the panel instead of the command line."""

from __future__ import annotations

import logging

from slicer.i18n import tr as _

# How a hint of the library shows that it speaks of the command line, of an environment variable or of a Python call.
_COMMAND_LINE = ("--", "diffusam ", "pip install", "TMPDIR", "DIFFUSAM_HOME")


class SegmentationError(RuntimeError):
    """What went wrong and what to do, a sentence each.

    :param code: "input", "weights", "packages", "oom", "output", "crashed", "stopped", "unfinished" or
        "internal"
    """

    def __init__(self, message: str, hint: str = "", code: str = "input") -> None:
        super().__init__(f"{message} {hint}".strip())
        self.message = message
        self.hint = hint
        self.code = code


def unforeseen(error: Exception) -> SegmentationError:
    """Any error as the panel shows it: one sentence, while the log says where it happened."""
    if isinstance(error, SegmentationError):
        return error
    logging.error("DiffuSAM Segment: an unforeseen error", exc_info=error)
    if isinstance(error, MemoryError):
        message = _("There is too little memory for this volume.")
        return SegmentationError(message, _("Close other programs, or crop the volume."), "oom")
    reason = str(error) or type(error).__name__
    message = _("Something unforeseen went wrong ({reason}).").format(reason=reason)
    return SegmentationError(message, _("Slicer's log has the details."), "internal")


def hintOf(code: str, hint: str) -> str:
    """What to do about an error of the library.

    :param code: of the error
    :param hint: of the library, which may speak of the command line
    """
    if code == "packages":
        return _("Press the button again to install what is missing.")
    if not any(term in hint for term in _COMMAND_LINE):
        return hint
    if code == "oom":
        return _('Choose the device "CPU", or close other programs.')
    if "--device" in hint:
        return _('Choose the device "CPU".')
    if "TMPDIR" in hint:
        return _(
            "Free some space, or choose another temporary folder in Edit > Application Settings > General."
        )
    if code == "output":
        return _("Free some space.")
    if code == "weights":
        return _('Open "Models..." to download, import or remove weights.')
    return ""


def hintInModels(code: str, hint: str) -> str:
    """As `hintOf`, for one who is in the dialog "Models..." already."""
    if code == "packages":
        return hint
    if code == "output" and "another name" in hint:
        return _("Choose another folder, or remove it first.")
    if not any(term in hint for term in _COMMAND_LINE):
        return hint
    if "models remove" in hint:
        return _("Remove the other one first.")
    if "models import" in hint:
        return _('Try again to go on, or fetch the file by other means and press "Import from file...".')
    return hintOf(code, hint)


def withNames(text: str, names: dict[str, str]) -> str:
    """A sentence of the library in which the names of nodes stand for the files that were written of them.

    :param names: of the nodes, by path
    """
    for path, name in names.items():
        text = text.replace(path, name)
    return text
