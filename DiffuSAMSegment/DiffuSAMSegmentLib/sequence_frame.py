"""Which frame of a sequence a node shows."""

from __future__ import annotations

import slicer


def browserOf(node):
    """The sequence browser whose present frame a node shows, or None."""
    sequences = getattr(slicer.modules, "sequences", None)
    if sequences is None or node is None:
        return None
    return sequences.logic().GetFirstBrowserNodeForProxyNode(node)


class ShownFrame:
    """The frame that a node shows now, to come back to: meanwhile the user may look at another one.

    :param node: one that belongs to no sequence shows the same all the time
    """

    def __init__(self, node) -> None:
        self._browser = browserOf(node)
        self._number = self._browser.GetSelectedItemNumber() if self._browser is not None else 0

    def isShown(self) -> bool:
        """Whether the node holds this frame at this moment."""
        if self._browser is None or not slicer.mrmlScene.IsNodePresent(self._browser):
            return True
        return self._browser.GetSelectedItemNumber() == self._number

    def show(self) -> None:
        """Shows it again, if another one is shown."""
        if not self.isShown():
            self._browser.SetSelectedItemNumber(self._number)
            slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(self._browser)
