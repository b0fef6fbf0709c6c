"""The curves of a training as Slicer's own plots: two charts over two tables."""

from __future__ import annotations

import slicer
import vtk
from slicer.i18n import tr as _

from .scene_nodes import exists

_TOTAL_COLOUR = (0.15, 0.15, 0.15)
# Told apart also by those who do not see all colours (Okabe and Ito).
_COLOURS = (
    (0.0, 0.45, 0.70),
    (0.84, 0.37, 0.0),
    (0.0, 0.62, 0.45),
    (0.80, 0.47, 0.65),
    (0.90, 0.62, 0.0),
    (0.34, 0.71, 0.91),
)
_FONTS = {
    "SetTitleFontSize": 12,
    "SetAxisTitleFontSize": 11,
    "SetAxisLabelFontSize": 10,
    "SetLegendFontSize": 10,
}


class Curves:
    """One chart with a table; a series comes with the first value that it has.

    :param name: of the chart and of the table
    :param yTitle: of the vertical axis
    :param first: the series to draw first, and thicker
    """

    def __init__(self, name: str, yTitle: str, first: str) -> None:
        self._first = first
        self._series: dict[str, object] = {}
        self.table = _addNode("vtkMRMLTableNode", name)
        self.table.SetUseColumnTitleAsColumnHeader(True)
        self._addColumn("iteration")
        self.chart = _addNode("vtkMRMLPlotChartNode", name)
        self.chart.SetTitle(name)
        self.chart.SetXAxisTitle(_("iteration"))
        self.chart.SetYAxisTitle(yTitle)
        for setter, size in _FONTS.items():
            getattr(self.chart, setter)(size)

    @property
    def nodes(self) -> list:
        """Everything that was added to the scene, in an order in which it can be removed."""
        return [self.chart, *self._series.values(), self.table]

    def add(self, iteration: int, values: dict[str, float | None]) -> None:
        """Appends a row; None leaves a gap in its curve."""
        if not exists(self.table) or not exists(self.chart):
            return  # the user deleted them
        table = self.table.GetTable()
        for name, value in values.items():
            if value is not None and name not in self._series:
                self._addColumn(name, rows=table.GetNumberOfRows())
                self._addSeries(name)
        row = table.InsertNextBlankRow(float("nan"))
        table.SetValueByName(row, "iteration", vtk.vtkVariant(float(iteration)))
        for name in self._series:
            value = values.get(name)
            if value is not None:
                table.SetValueByName(row, name, vtk.vtkVariant(float(value)))
        table.Modified()
        # Views listen to the chart only.
        self.chart.Modified()

    def _addColumn(self, name: str, rows: int = 0) -> None:
        column = vtk.vtkDoubleArray()
        column.SetName(name)
        column.SetNumberOfValues(rows)
        column.Fill(float("nan"))
        self.table.AddColumn(column)

    def _addSeries(self, name: str) -> None:
        # The legend shows the names of the nodes.
        series = _addNode("vtkMRMLPlotSeriesNode", name)
        series.SetAndObserveTableNodeID(self.table.GetID())
        series.SetXColumnName("iteration")
        series.SetYColumnName(name)
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
        series.SetLineWidth(3 if name == self._first else 1.5)
        others = [other for other in self._series if other != self._first]
        colour = _TOTAL_COLOUR if name == self._first else _COLOURS[len(others) % len(_COLOURS)]
        series.SetColor(*colour)
        self._series[name] = series
        self.chart.AddAndObservePlotSeriesNodeID(series.GetID())


class TrainingPlot:
    """The losses and the held-out Dice of a training.

    :param name: of the prior
    :param owner: node that manages the plot views instead of the application's layout
    """

    def __init__(self, name: str, owner) -> None:
        self.losses = Curves(_("{name}: losses").format(name=name), _("loss"), "total")
        self.dice = Curves(_("{name}: Dice, held out").format(name=name), _("Dice"), "mean")
        self.dice.chart.SetYAxisRangeAuto(False)
        self.dice.chart.SetYAxisRange(0.0, 1.0)
        self.views = [
            _addView(curves.chart, number, owner) for number, curves in enumerate((self.losses, self.dice))
        ]

    def addLosses(self, event: dict) -> None:
        """Takes an event "losses" of the child process."""
        self.losses.add(event["iteration"], {"total": event["total"], **event["losses"]})

    def addValidation(self, event: dict) -> None:
        """Takes an event "validation" of the child process."""
        dice = event["dice"]
        mean = {"mean": event["mean_dice"]} if len(dice) > 1 else {}
        self.dice.add(event["iteration"], {**mean, **dice})
        for series in self.dice._series.values():
            series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleCircle)

    def discard(self) -> None:
        """Takes everything out of the scene again."""
        for node in (*self.views, *self.losses.nodes, *self.dice.nodes):
            _remove(node)

    def discardViews(self) -> None:
        """Takes out what only the panel needs; charts and tables stay."""
        for node in self.views:
            _remove(node)


def _addNode(kind: str, name: str):
    return slicer.mrmlScene.AddNewNodeByClass(kind, name)


def _addView(chart, number: int, owner):
    view = slicer.vtkMRMLPlotViewNode()
    # Without an owner of its own it would become a view of the application's layout.
    view.SetLayoutName(f"DiffuSAMTraining{number}")
    view.SetName(f"DiffuSAMTraining{number}")
    view.SetAndObserveParentLayoutNodeID(owner.GetID())
    view.SetHideFromEditors(True)
    view.SetSaveWithScene(False)
    view = slicer.mrmlScene.AddNode(view)
    view.SetPlotChartNodeID(chart.GetID())
    return view


def _remove(node) -> None:
    if not exists(node):
        return
    storage = node.GetStorageNode() if node.IsA("vtkMRMLStorableNode") else None
    slicer.mrmlScene.RemoveNode(node)
    if exists(storage):
        slicer.mrmlScene.RemoveNode(storage)
