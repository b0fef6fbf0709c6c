"""CTK's widgets, as far as a module's panel uses them."""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Qt

from .dialogs import modal
from .host_class import from_facts, host_property, register, state


def row(widget: QtWidgets.QWidget, *children: QtWidgets.QWidget) -> None:
    layout = QtWidgets.QHBoxLayout(widget)
    layout.setContentsMargins(0, 0, 0, 0)
    for child in children:
        layout.addWidget(child)


class _Collapsing(QtCore.QObject):
    """Hides the children of a collapsed container, those too that are shown meanwhile, and shows them again."""

    def __init__(self, container: QtWidgets.QWidget) -> None:
        super().__init__(container)
        self._collapsed, self._busy, self._hidden = False, False, []
        container.installEventFilter(self)

    def eventFilter(self, watched: QtCore.QObject, event: QtCore.QEvent) -> bool:
        kind = event.type()
        if watched is self.parent():
            if kind == QtCore.QEvent.Type.ChildAdded and event.child().isWidgetType():
                event.child().installEventFilter(self)
        elif self._collapsed and not self._busy and kind == QtCore.QEvent.Type.ShowToParent:
            self._hide(watched)
        elif self._collapsed and not self._busy and kind == QtCore.QEvent.Type.HideToParent:
            self._hidden = [w for w in self._hidden if w is not watched]
        return False

    def _hide(self, child: QtWidgets.QWidget) -> None:
        self._busy = True
        child.setVisible(False)
        self._busy = False
        self._hidden.append(child)

    def apply(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        if collapsed:
            for child in self.parent().children():
                if isinstance(child, QtWidgets.QWidget) and not child.isHidden():
                    self._hide(child)
        else:
            children, self._hidden = self._hidden, []
            for child in children:
                child.setVisible(True)


@register
class ctkCollapsibleButton(from_facts("ctkCollapsibleButton", QtWidgets.QAbstractButton)):
    def __init__(self, *arguments: Any) -> None:
        text = arguments[0] if arguments and isinstance(arguments[0], str) else ""
        super().__init__(*arguments[bool(text) :])
        own = state(self)
        own.header = self.fontMetrics().height() + 10
        own.content = _Collapsing(self)
        self.setText(text)
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(0, own.header, 0, 0)
        self.setMinimumHeight(own.header)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Preferred)
        self.toggled.connect(self._toggled)

    def _toggled(self, checked: bool) -> None:
        state(self).content.apply(not checked)
        self.setMaximumHeight(16777215 if checked else state(self).header)
        self.contentsCollapsed.emit(not checked)

    collapsed = host_property(
        "bool",
        "collapsed",
        get=lambda self: not self.checked,
        put=lambda self, value: self.setChecked(not value),
    )
    collapsedHeight = host_property("int", "collapsedHeight", default=10)
    flat = host_property("bool", "flat", default=False)

    def hitButton(self, position: QtCore.QPoint) -> bool:
        return position.y() < state(self).header

    def sizeHint(self) -> QtCore.QSize:
        header = QtCore.QSize(self.fontMetrics().horizontalAdvance(self.text) + 40, state(self).header)
        return header.expandedTo(self.layout().totalSizeHint()) if self.layout() and self.checked else header

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect.setHeight(state(self).header)
        option.features = QtWidgets.QStyleOptionButton.ButtonFeature.None_
        painter.drawControl(QtWidgets.QStyle.ControlElement.CE_PushButtonBevel, option)
        arrow = QtWidgets.QStyleOption()
        arrow.initFrom(self)
        arrow.rect = QtCore.QRect(6, option.rect.height() // 2 - 5, 10, 10)
        shape = QtWidgets.QStyle.PrimitiveElement
        painter.drawPrimitive(
            shape.PE_IndicatorArrowDown if self.checked else shape.PE_IndicatorArrowRight, arrow
        )
        painter.drawText(option.rect.adjusted(22, 0, 0, 0), Qt.AlignmentFlag.AlignVCenter, self.text)


@register
class ctkCollapsibleGroupBox(from_facts("ctkCollapsibleGroupBox", QtWidgets.QGroupBox)):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        state(self).content = _Collapsing(self)
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(lambda checked: state(self).content.apply(not checked))

    collapsed = host_property(
        "bool",
        "collapsed",
        get=lambda self: not self.checked,
        put=lambda self, value: self.setChecked(not value),
    )
    collapsedHeight = host_property("int", "collapsedHeight", default=14)


@register
class ctkPushButton(from_facts("ctkPushButton", QtWidgets.QPushButton)):
    pass


@register
class ctkMenuButton(from_facts("ctkMenuButton", QtWidgets.QPushButton)):
    pass


@register
class ctkExpandButton(from_facts("ctkExpandButton", QtWidgets.QToolButton)):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.setCheckable(True)


@register
class ctkCheckBox(from_facts("ctkCheckBox", QtWidgets.QCheckBox)):
    pass


@register
class ctkComboBox(from_facts("ctkComboBox", QtWidgets.QComboBox)):
    defaultText = host_property("QString", "defaultText", default="")
    forceDefault = host_property("bool", "forceDefault", default=False)
    scrollWheelEffect = host_property("QVariant", "scrollWheelEffect", default=None)
    currentUserDataAsString = host_property(
        "QString",
        "currentUserDataAsString",
        get=lambda self: str(self.currentData or ""),
        put=lambda self, value: self.setCurrentIndex(self.findData(value)),
    )

    def setCurrentUserDataAsString(self, data: str) -> None:
        self.currentUserDataAsString = data


@register
class ctkCheckableComboBox(from_facts("ctkCheckableComboBox", QtWidgets.QComboBox)):
    _ROLE = Qt.ItemDataRole.CheckStateRole

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        state(self).checked = ()
        self.model().rowsInserted.connect(self._make_checkable)
        self.model().rowsRemoved.connect(self._compare)
        self.model().dataChanged.connect(self._data_changed)

    def _make_checkable(self, parent: QtCore.QModelIndex, first: int, last: int) -> None:
        for index in range(first, last + 1):
            item = self.model().item(index)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            item.setData(Qt.CheckState.Unchecked, self._ROLE)

    def _data_changed(self, first: QtCore.QModelIndex, last: QtCore.QModelIndex, roles: list) -> None:
        if not roles or self._ROLE in roles:
            self._compare()

    def _compare(self, *_: object) -> None:
        now = tuple((i.row(), i.data()) for i in self.checkedIndexes())
        if now != state(self).checked:
            state(self).checked = now
            self.update()
            self.checkedIndexesChanged.emit()

    def _indexes(self) -> list[QtCore.QModelIndex]:
        return [self.model().index(r, 0) for r in range(self.model().rowCount())]

    def checkableModel(self) -> QtCore.QAbstractItemModel:
        return self.model()

    def checkState(self, index: QtCore.QModelIndex) -> Qt.CheckState:
        return Qt.CheckState(self.model().data(index, self._ROLE) or Qt.CheckState.Unchecked)

    def setCheckState(self, index: QtCore.QModelIndex, check: Qt.CheckState) -> None:
        if self.checkState(index) != check:
            self.model().setData(index, Qt.CheckState(check), self._ROLE)

    def checkedIndexes(self) -> tuple[QtCore.QModelIndex, ...]:
        return tuple(i for i in self._indexes() if self.checkState(i) == Qt.CheckState.Checked)

    def allChecked(self) -> bool:
        return len(self.checkedIndexes()) == self.count

    def noneChecked(self) -> bool:
        return not self.checkedIndexes()

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionComboBox()
        self.initStyleOption(option)
        option.currentText = ", ".join(i.data() for i in self.checkedIndexes())
        painter.drawComplexControl(QtWidgets.QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QtWidgets.QStyle.ControlElement.CE_ComboBoxLabel, option)


@register
class ctkPathLineEdit(from_facts("ctkPathLineEdit", QtWidgets.QWidget)):
    # QDir's filters, under CTK's name.
    Dirs, Files, Drives, NoSymLinks, AllEntries = 0x1, 0x2, 0x4, 0x8, 0x7
    Readable, Writable, Executable, Hidden, NoDotAndDotDot = 0x10, 0x20, 0x40, 0x100, 0x6000
    host_enumeration = (
        "Dirs Files Drives NoSymLinks AllEntries Readable Writable Executable Hidden NoDotAndDotDot"
    )

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        own = state(self)
        own.combo, own.browse, own.was_valid = QtWidgets.QComboBox(), QtWidgets.QToolButton(), False
        own.combo.setEditable(True)
        own.combo.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Fixed)
        own.browse.setText("...")
        row(self, own.combo, own.browse)
        own.combo.editTextChanged.connect(self._text_changed)
        own.browse.clicked.connect(lambda: self.browse())

    def _text_changed(self, text: str) -> None:
        self.currentPathChanged.emit(text)
        valid = QtCore.QFileInfo(text).exists() if text else False
        if valid != state(self).was_valid:
            state(self).was_valid = valid
            self.validInputChanged.emit(valid)

    currentPath = host_property(
        "QString",
        "currentPath",
        get=lambda self: state(self).combo.currentText,
        put=lambda self, value: state(self).combo.setEditText(value),
    )
    filters = host_property("int", "filters", default=0x7)
    nameFilters = host_property("QStringList", "nameFilters", default=())
    label = host_property("QString", "label", default="")
    settingKey = host_property("QString", "settingKey", default="")
    showBrowseButton = host_property(
        "bool",
        "showBrowseButton",
        get=lambda self: not state(self).browse.isHidden(),
        put=lambda self, value: state(self).browse.setVisible(value),
    )
    showHistoryButton = host_property("bool", "showHistoryButton", default=True)

    def setCurrentPath(self, path: str) -> None:
        self.currentPath = path

    def comboBox(self) -> QtWidgets.QComboBox:
        return state(self).combo

    def addCurrentPathToHistory(self) -> None:
        if self.currentPath and state(self).combo.findText(self.currentPath) < 0:
            state(self).combo.insertItem(0, self.currentPath)

    def retrieveHistory(self) -> None:
        path = self.currentPath
        state(self).combo.clear()
        state(self).combo.addItems(list(QtCore.QSettings().value(self.settingKey) or []))
        self.currentPath = path

    def browse(self) -> None:
        if path := modal("ctkPathLineEdit.browse", self.label):
            self.currentPath = path


@register
class ctkDirectoryButton(from_facts("ctkDirectoryButton", QtWidgets.QWidget)):
    def __init__(self, *arguments: Any) -> None:
        directory = arguments[0] if arguments and isinstance(arguments[0], str) else QtCore.QDir.currentPath()
        super().__init__(*[a for a in arguments if not isinstance(a, str)])
        own = state(self)
        own.button, own.path = QtWidgets.QPushButton(), directory
        row(self, own.button)
        own.button.setText(directory)
        own.button.clicked.connect(lambda: self.browse())

    def _put_directory(self, directory: str) -> None:
        path = QtCore.QDir(directory).absolutePath()
        if path != state(self).path:
            state(self).path = path
            state(self).button.setText(path)
            self.directoryChanged.emit(path)

    directory = host_property("QString", "directory", get=lambda self: state(self).path, put=_put_directory)
    caption = host_property("QString", "caption", default="")

    def browse(self) -> None:
        if path := modal("ctkDirectoryButton.browse", self.caption):
            self.directory = path
            self.directorySelected.emit(path)


@register
class ctkFittedTextBrowser(from_facts("ctkFittedTextBrowser", QtWidgets.QTextBrowser)):
    collapsed = host_property("bool", "collapsed", default=True)
    disableMouseScroll = host_property("bool", "disableMouseScroll", default=True)

    def collapsibleText(self) -> str:
        return state(self).__dict__.get("text", "")

    def setCollapsibleText(self, text: str) -> None:
        state(self).text = text
        self.setText(text)

    def setCollapsibleHtml(self, text: str) -> None:
        state(self).text = text
        self.setHtml(text)

    def setCollapsiblePlainText(self, text: str) -> None:
        state(self).text = text
        self.setPlainText(text)


@register
class ctkSearchBox(from_facts("ctkSearchBox", QtWidgets.QLineEdit)):
    pass


@register
class ctkMessageBox(from_facts("ctkMessageBox", QtWidgets.QMessageBox)):
    dontShowAgain = host_property("bool", "dontShowAgain", default=False)
    dontShowAgainVisible = host_property("bool", "dontShowAgainVisible", default=False)
    dontShowAgainSettingsKey = host_property("QString", "dontShowAgainSettingsKey", default="")

    def setDontShowAgain(self, value: bool) -> None:
        self.dontShowAgain = value
