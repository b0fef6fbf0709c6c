"""Slicer's plot view: the charts of the real MRML nodes, drawn by Qt instead of VTK."""

from __future__ import annotations

import math
from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets

from .host_class import from_facts, host_class, register, state
from .observers import Observers

_LEFT, _TOP, _RIGHT, _BOTTOM = 58, 26, 12, 36


@register
class qMRMLPlotView(from_facts("qMRMLPlotView", host_class("ctkVTKChartView"))):
    """Shows the chart of its view node; as in Slicer it listens to the view and the chart, not to tables."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        own = state(self)
        own.scene, own.view, own.curves = None, None, []
        own.view_observers, own.chart_observers = Observers(self), Observers(self)

    def setMRMLScene(self, scene: Any) -> None:
        if scene is not state(self).scene:
            state(self).scene = scene
            self.mrmlSceneChanged.emit(scene)
            self._read_view()

    def setMRMLPlotViewNode(self, node: Any) -> None:
        if node is not None and not isinstance(node, slicer.vtkMRMLPlotViewNode):
            raise TypeError(f"qMRMLPlotView.setMRMLPlotViewNode() takes a plot view node, not {node!r}.")
        own = state(self)
        own.view_observers.clear()
        own.view = node
        if node is not None:
            if node.GetParentLayoutNode() is None:
                raise ValueError(
                    "A plot view node without a parent layout node belongs to Slicer's own layout."
                )
            own.view_observers.add(node, vtk.vtkCommand.ModifiedEvent, "_read_view")
        self._read_view()

    def fitToContent(self) -> None:
        self._read_chart()

    def _chart(self) -> Any:
        own = state(self)
        if own.scene is None or own.view is None or not own.scene.IsNodePresent(own.view):
            return None
        return own.view.GetPlotChartNode()

    def _read_view(self) -> None:
        own, chart = state(self), self._chart()
        own.chart_observers.clear()
        if chart is not None:
            own.chart_observers.add(chart, vtk.vtkCommand.ModifiedEvent, "_read_chart")
        self._read_chart()

    def _read_chart(self) -> None:
        chart = self._chart()
        count = chart.GetNumberOfPlotSeriesNodes() if chart is not None else 0
        series = [chart.GetNthPlotSeriesNode(n) for n in range(count)]
        state(self).curves = [_Curve(node) for node in series if node is not None]
        self.update()

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtGui.QPainter(self)
        painter.setRenderHint(QtGui.QPainter.RenderHint.Antialiasing)
        painter.fillRect(self.rect, QtGui.QColor(255, 253, 246))
        chart = self._chart()
        if chart is not None:
            _Picture(painter, self.rect, chart, state(self).curves).draw()
        painter.end()


class _Curve:
    """The values of a series, as they were when the chart was last changed."""

    def __init__(self, node: Any) -> None:
        table = node.GetTableNode().GetTable() if node.GetTableNode() is not None else None
        columns = [table.GetColumnByName(name) for name in (node.GetXColumnName(), node.GetYColumnName())]
        if None in columns:
            raise ValueError(f"The table of the series {node.GetName()} has no column of one of its names.")
        rows = range(table.GetNumberOfRows())
        points = [(columns[0].GetValue(row), columns[1].GetValue(row)) for row in rows]
        self.points = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        self.name, self.width = node.GetName(), node.GetLineWidth()
        self.colour = QtGui.QColor.fromRgbF(*node.GetColor())
        self.marked = node.GetMarkerStyle() != slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone


class _Picture:
    """A chart in a rectangle of pixels."""

    def __init__(self, painter: QtGui.QPainter, area: QtCore.QRect, chart: Any, curves: list[_Curve]) -> None:
        self.painter, self.chart, self.curves = painter, chart, curves
        self.frame = QtCore.QRectF(area.adjusted(_LEFT, _TOP, -_RIGHT, -_BOTTOM))
        self.x = self._range(0, chart.GetXAxisRangeAuto(), chart.GetXAxisRange())
        self.y = self._range(1, chart.GetYAxisRangeAuto(), chart.GetYAxisRange())

    def _range(self, axis: int, automatic: bool, fixed: tuple[float, float]) -> tuple[float, float]:
        values = [point[axis] for curve in self.curves for point in curve.points]
        low, high = (min(values), max(values)) if automatic and values else fixed
        if automatic and axis == 1:
            low = min(low, 0.0)
        return (low, high) if high > low else (low, low + 1.0)

    def _place(self, x: float, y: float) -> QtCore.QPointF:
        right = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return QtCore.QPointF(
            self.frame.left() + right * self.frame.width(), self.frame.bottom() - up * self.frame.height()
        )

    def draw(self) -> None:
        self._axes()
        for curve in self.curves:
            self.painter.setPen(QtGui.QPen(curve.colour, curve.width))
            places = [self._place(*point) for point in curve.points]
            self.painter.drawPolyline(places)
            if curve.marked:
                self.painter.setBrush(curve.colour)
                for place in places:
                    self.painter.drawEllipse(place, 3.0, 3.0)
                self.painter.setBrush(QtCore.Qt.BrushStyle.NoBrush)
        if self.chart.GetLegendVisibility():
            self._legend()

    def _axes(self) -> None:
        painter, frame, middle = self.painter, self.frame, QtCore.Qt.AlignmentFlag.AlignCenter
        self._font(self.chart.GetAxisLabelFontSize())
        for axis, (low, high) in enumerate((self.x, self.y)):
            for tick in _ticks(low, high):
                start = self._place(tick, self.y[0]) if axis == 0 else self._place(self.x[0], tick)
                end = self._place(tick, self.y[1]) if axis == 0 else self._place(self.x[1], tick)
                if self.chart.GetGridVisibility():
                    painter.setPen(QtGui.QColor(225, 222, 214))
                    painter.drawLine(start, end)
                painter.setPen(QtGui.QColor("black"))
                corner = start + (QtCore.QPointF(-30, 2) if axis == 0 else QtCore.QPointF(-44, -8))
                size = QtCore.QSizeF(60, 14) if axis == 0 else QtCore.QSizeF(40, 16)
                side = middle if axis == 0 else QtCore.Qt.AlignmentFlag.AlignRight | middle
                painter.drawText(QtCore.QRectF(corner, size), side, f"{tick:g}")
        painter.setPen(QtGui.QColor("black"))
        painter.drawRect(frame)
        self._font(self.chart.GetAxisTitleFontSize())
        below = QtCore.QRectF(frame.left(), frame.bottom() + 16, frame.width(), 18)
        painter.drawText(below, middle, self.chart.GetXAxisTitle() or "")
        painter.save()
        painter.translate(12, frame.center().y())
        painter.rotate(-90)
        painter.drawText(QtCore.QRectF(-80, -10, 160, 18), middle, self.chart.GetYAxisTitle() or "")
        painter.restore()
        if self.chart.GetTitleVisibility():
            self._font(self.chart.GetTitleFontSize(), bold=True)
            above = QtCore.QRectF(frame.left(), 3, frame.width(), 20)
            painter.drawText(above, middle, self.chart.GetTitle() or "")

    def _legend(self) -> None:
        self._font(self.chart.GetLegendFontSize())
        width = max((self.painter.fontMetrics().horizontalAdvance(c.name) for c in self.curves), default=0)
        box = QtCore.QRectF(
            self.frame.right() - width - 42, self.frame.top() + 6, width + 36, 15 * len(self.curves) + 4
        )
        if not self.curves:
            return
        self.painter.setPen(QtGui.QColor(180, 180, 180))
        self.painter.fillRect(box, QtGui.QColor(255, 255, 255, 215))
        self.painter.drawRect(box)
        for number, curve in enumerate(self.curves):
            y = box.top() + 10 + 15 * number
            self.painter.setPen(QtGui.QPen(curve.colour, curve.width))
            self.painter.drawLine(QtCore.QPointF(box.left() + 5, y), QtCore.QPointF(box.left() + 23, y))
            self.painter.setPen(QtGui.QColor("black"))
            self.painter.drawText(QtCore.QPointF(box.left() + 28, y + 4), curve.name)

    def _font(self, pixels: int, *, bold: bool = False) -> None:
        font = self.painter.font()
        font.setPixelSize(pixels)
        font.setBold(bold)
        self.painter.setFont(font)


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers within a range."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]
