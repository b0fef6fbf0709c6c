"""CTK's widgets for numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6 import QtWidgets
from PySide6.QtCore import Qt

from .host_class import from_facts, host_property, register, state
from .widgets_ctk import row


def _child(name: str, *, child: str = "spin", writable: bool = True) -> dict[str, Callable]:
    """Reads and writes a property of a part of the widget."""

    def put(self: Any, value: Any) -> None:
        setattr(getattr(state(self), child), name, value)

    functions: dict[str, Callable] = {"get": lambda self: getattr(getattr(state(self), child), name)}
    return functions | {"put": put} if writable else functions


@register
class ctkDoubleSpinBox(from_facts("ctkDoubleSpinBox", QtWidgets.QWidget)):
    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        spin = state(self).spin = QtWidgets.QDoubleSpinBox()
        row(self, spin)
        spin.valueChanged.connect(self._value_changed)
        spin.editingFinished.connect(self.editingFinished)

    def _value_changed(self, value: float) -> None:
        self._valueChanged_double_.emit(value)
        self._valueChanged_QString_.emit(state(self).spin.text)

    value = host_property("double", "value", **_child("value"))
    minimum = host_property("double", "minimum", **_child("minimum"))
    maximum = host_property("double", "maximum", **_child("maximum"))
    singleStep = host_property("double", "singleStep", **_child("singleStep"))
    decimals = host_property("int", "decimals", **_child("decimals"))
    prefix = host_property("QString", "prefix", **_child("prefix"))
    suffix = host_property("QString", "suffix", **_child("suffix"))
    readOnly = host_property("bool", "readOnly", **_child("readOnly"))
    cleanText = host_property("QString", "cleanText", **_child("cleanText", writable=False))

    def setValue(self, value: float) -> None:
        self.value = value

    setValueIfDifferent = setValue

    def setDecimals(self, decimals: int) -> None:
        self.decimals = decimals

    def stepUp(self) -> None:
        state(self).spin.stepUp()

    def stepDown(self) -> None:
        state(self).spin.stepDown()


@register
class ctkSliderWidget(from_facts("ctkSliderWidget", QtWidgets.QWidget)):
    _STEPS = 1000

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        own = state(self)
        own.slider, own.spin = QtWidgets.QSlider(Qt.Orientation.Horizontal), QtWidgets.QDoubleSpinBox()
        own.slider.setRange(0, self._STEPS)
        own.spin.setKeyboardTracking(False)
        row(self, own.slider, own.spin)
        own.spin.setRange(0.0, 99.0)
        own.spin.valueChanged.connect(self._value_changed)
        own.slider.sliderMoved.connect(self._slider_moved)

    def _value_changed(self, value: float) -> None:
        self._place_slider()
        self.valueIsChanging.emit(value)
        self.valueChanged.emit(value)

    def _place_slider(self) -> None:
        spin, span = state(self).spin, self.maximum - self.minimum
        state(self).slider.setValue(round((spin.value - self.minimum) / span * self._STEPS) if span else 0)

    def _slider_moved(self, position: int) -> None:
        self.value = self.minimum + position / self._STEPS * (self.maximum - self.minimum)

    def _put_limit(self, which: str, value: float) -> None:
        setattr(state(self).spin, which, value)
        self._place_slider()

    value = host_property("double", "value", **_child("value"))
    minimum = host_property(
        "double",
        "minimum",
        **_child("minimum") | {"put": lambda self, value: self._put_limit("minimum", value)},
    )
    maximum = host_property(
        "double",
        "maximum",
        **_child("maximum") | {"put": lambda self, value: self._put_limit("maximum", value)},
    )
    singleStep = host_property("double", "singleStep", **_child("singleStep"))
    pageStep = host_property("double", "pageStep", default=10.0)
    decimals = host_property("int", "decimals", **_child("decimals"))
    prefix = host_property("QString", "prefix", **_child("prefix"))
    suffix = host_property("QString", "suffix", **_child("suffix"))
    tracking = host_property("bool", "tracking", default=True)
    spinBoxVisible = host_property(
        "bool",
        "spinBoxVisible",
        get=lambda self: not state(self).spin.isHidden(),
        put=lambda self, value: state(self).spin.setVisible(value),
    )

    def setValue(self, value: float) -> None:
        self.value = value

    def setDecimals(self, decimals: int) -> None:
        self.decimals = decimals

    def setSpinBoxVisible(self, visible: bool) -> None:
        self.spinBoxVisible = visible

    def reset(self) -> None:
        self.value = min(max(0.0, self.minimum), self.maximum)


@register
class ctkRangeWidget(from_facts("ctkRangeWidget", QtWidgets.QWidget)):
    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        own = state(self)
        own.low, own.high = QtWidgets.QDoubleSpinBox(), QtWidgets.QDoubleSpinBox()
        row(self, own.low, own.high)
        self.setRange(0.0, 99.0)
        own.high.setValue(99.0)
        own.low.valueChanged.connect(self._low_changed)
        own.high.valueChanged.connect(self._high_changed)

    def _low_changed(self, value: float) -> None:
        state(self).high.setMinimum(value)
        self.minimumValueChanged.emit(value)
        self.valuesChanged.emit(self.minimumValue, self.maximumValue)

    def _high_changed(self, value: float) -> None:
        state(self).low.setMaximum(value)
        self.maximumValueChanged.emit(value)
        self.valuesChanged.emit(self.minimumValue, self.maximumValue)

    def _put_decimals(self, decimals: int) -> None:
        state(self).low.setDecimals(decimals)
        state(self).high.setDecimals(decimals)

    minimumValue = host_property("double", "minimumValue", **_child("value", child="low"))
    maximumValue = host_property("double", "maximumValue", **_child("value", child="high"))
    minimum = host_property("double", "minimum", **_child("minimum", child="low"))
    maximum = host_property("double", "maximum", **_child("maximum", child="high"))
    singleStep = host_property("double", "singleStep", **_child("singleStep", child="low"))
    decimals = host_property("int", "decimals", get=lambda self: state(self).low.decimals, put=_put_decimals)

    def setDecimals(self, decimals: int) -> None:
        self.decimals = decimals

    def setRange(self, minimum: float, maximum: float) -> None:
        state(self).low.setRange(minimum, maximum)
        state(self).high.setRange(minimum, maximum)
        self.rangeChanged.emit(minimum, maximum)

    def setValues(self, low: float, high: float) -> None:
        state(self).low.setMaximum(high)
        self.maximumValue, self.minimumValue = high, low

    def setMinimumValue(self, value: float) -> None:
        self.minimumValue = value

    def setMaximumValue(self, value: float) -> None:
        self.maximumValue = value
