"""The lists of organs that the user checks or unchecks."""

from __future__ import annotations

from collections.abc import Callable

import qt


class OrganList:
    """A QListWidget with a check box for each organ of the prior.

    :param listWidget: of the panel
    :param onChanged: called with the names that are not checked, after the user changed one
    """

    def __init__(self, listWidget, onChanged: Callable[[list[str]], None]) -> None:
        self._list = listWidget
        self._onChanged = onChanged
        self._names: tuple[str, ...] = ()
        self._list.connect("itemChanged(QListWidgetItem*)", self._onItemChanged)

    def show(self, names: tuple[str, ...], skipped: list[str]) -> None:
        """Shows organs, with all but the skipped ones checked."""
        self._list.blockSignals(True)
        if names != self._names:
            self._names = names
            self._list.clear()
            for name in names:
                self._list.addItem(name)
        for row, name in enumerate(names):
            self._list.item(row).setCheckState(qt.Qt.Unchecked if name in skipped else qt.Qt.Checked)
        self._list.blockSignals(False)

    def checkAll(self, checked: bool) -> None:
        """Checks or unchecks every organ."""
        self._onChanged([] if checked else list(self._names))

    def _onItemChanged(self, _item: object) -> None:
        rows = range(len(self._names))
        self._onChanged([self._names[r] for r in rows if self._list.item(r).checkState() != qt.Qt.Checked])
