"""Parts of the panel that cannot be used while something runs."""

from __future__ import annotations

import slicer


class Lock:
    """Disables parts of the panel while something runs; whatever of them is hovered then says why.

    :param parts: widgets of the panel
    :param reason: a sentence on what to do
    """

    def __init__(self, parts: list, reason: str) -> None:
        self._parts = parts
        self._reason = reason
        self._toolTips: list[tuple[object, str]] = []

    def close(self) -> None:
        """Disables the parts."""
        self.open()
        for part in self._parts:
            part.enabled = False
            # The part itself is among them. Qt shows the tooltip of the innermost widget that has one.
            named = vars(slicer.util.childWidgetVariables(part))
            for widget in (named[name] for name in named if _isOurs(name)):
                if hasattr(widget, "toolTip"):
                    self._toolTips.append((widget, widget.toolTip))
                    widget.toolTip = self._reason

    def open(self) -> None:
        """Enables them again."""
        for part in self._parts:
            part.enabled = True
        for widget, toolTip in self._toolTips:
            widget.toolTip = toolTip
        self._toolTips = []


def _isOurs(name: str) -> bool:
    """Whether a widget is named in the .ui file; Qt's own parts and cells of tables may go at any time."""
    return bool(name) and not name.startswith("qt_")
