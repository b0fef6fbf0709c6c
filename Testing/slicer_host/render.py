"""Pictures of a scene as the application's four views show it, beside a module's panel.

Slicer's displayable managers crash when they are destroyed, so the views live in a process of their own that ends
without destroying anything. The scene goes there as a .mrb file.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CAPTION = "Rendered by the test host, not by 3D Slicer"
_SLICES = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}
# Slicer's colours of its views: red, 3D, green, yellow.
_BARS = ("#f34a33", "#7c7fce", "#6eb04b", "#edd54c")
_MANAGERS_2D = ("vtkMRMLSegmentationsDisplayableManager2D", "vtkMRMLModelSliceDisplayableManager")
_MANAGERS_3D = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
)


def save_picture(
    host: Any,
    path: str | Path,
    *,
    panel: Any = None,
    centre: tuple[float, float, float] | None = None,
    caption: str = CAPTION,
    view_size: int = 420,
    surfaces: bool = True,
    timeout: float = 300.0,
) -> Path:
    """Writes a .png of the scene's first volume and its segmentations in three slice views and 3D.

    Args:
        panel: a module's Python widget object, drawn to the left of the views.
        centre: RAS position in mm that the slices go through; by default the middle of what is segmented.
        view_size: width and height of each view in pixels.
        surfaces: whether the 3D view shows the segmentations, as after *Show 3D*.

    Raises:
        RuntimeError: the rendering process failed; with what it printed.
    """
    path = Path(path).resolve()
    with tempfile.TemporaryDirectory(prefix="slicer_host_render_") as name:
        folder = Path(name)
        if not host.scene.WriteToMRB(str(folder / "scene.mrb")):
            raise RuntimeError("The scene could not be saved.")
        options = {
            "centre": centre,
            "caption": caption,
            "view_size": view_size,
            "surfaces": surfaces,
            "panel": None,
        }
        if panel is not None:
            wanted = panel.parent.sizeHint()
            # A panel that is higher than the views would be scrolled in the application; here it is drawn smaller.
            panel.parent.resize(
                max(420, panel.parent.minimumSizeHint().width()), max(2 * view_size, wanted.height())
            )
            host.process_events()
            options["panel"] = str(folder / "panel.png")
            panel.parent.grab().save(options["panel"])
        command = [
            sys.executable,
            "-m",
            "slicer_host.render",
            str(folder / "scene.mrb"),
            str(path),
            json.dumps(options),
        ]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        environment.pop("DISPLAY", None)
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
    if done.returncode or not path.is_file():
        raise RuntimeError(f"No picture (exit code {done.returncode}):\n{done.stdout}\n{done.stderr}")
    return path


class _Views:
    """Everything that a view needs, kept alive until the process ends."""

    def __init__(self, host: Any, size: int) -> None:
        self.host, self.size, self.keep = host, size, []
        slicer = host.slicer
        for factory, managers in (
            (slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance(), _MANAGERS_2D),
            (slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance(), _MANAGERS_3D),
        ):
            factory.SetMRMLApplicationLogic(host.logic)
            for manager in managers:
                if not factory.IsDisplayableManagerRegistered(manager):
                    factory.RegisterDisplayableManager(manager)

    def _window(self) -> tuple[Any, Any]:
        import vtk

        renderer, window = vtk.vtkRenderer(), vtk.vtkRenderWindow()
        window.SetOffScreenRendering(1)
        window.SetMultiSamples(0)
        window.SetSize(self.size, self.size)
        window.AddRenderer(renderer)
        interactor = vtk.vtkRenderWindowInteractor()
        interactor.SetRenderWindow(window)
        self.keep += [renderer, window, interactor]
        return renderer, window

    def _managers(self, factory: Any, renderer: Any, node: Any) -> None:
        group = self.host.slicer.vtkMRMLDisplayableManagerGroup()
        group.Initialize(factory, renderer)
        group.SetMRMLDisplayableNode(node)
        self.keep.append(group)

    @staticmethod
    def _pixels(window: Any) -> Any:
        import vtk
        from vtk.util.numpy_support import vtk_to_numpy

        window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(window)
        grab.ReadFrontBufferOff()
        grab.Update()
        image = grab.GetOutput()
        width, height, _ = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, 3)[::-1].copy()

    def slice_view(
        self, layout: str, orientation: str, volume: Any, centre: tuple[float, float, float]
    ) -> Any:
        import vtk

        slicer, renderer_window = self.host.slicer, self._window()
        renderer, window = renderer_window
        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(self.host.logic)
        logic.SetMRMLScene(self.host.scene)
        node = logic.AddSliceNode(layout)
        self.host.logic.GetSliceLogics().AddItem(logic)
        node.SetDimensions(self.size, self.size, 1)
        node.SetOrientation(orientation)
        logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
        logic.FitSliceToAll(self.size, self.size)
        node.JumpSliceByOffsetting(*centre)
        mapper, actor = vtk.vtkImageMapper(), vtk.vtkActor2D()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        mapper.SetInputConnection(logic.GetImageDataConnection())
        actor.SetMapper(mapper)
        renderer.AddViewProp(actor)  # before the segmentations, which are drawn over it
        self._managers(slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance(), renderer, node)
        self.keep += [logic, mapper, actor]
        return self._pixels(window)

    def view_3d(self) -> Any:
        slicer = self.host.slicer
        renderer, window = self._window()
        logic = slicer.vtkMRMLViewLogic()
        logic.SetMRMLApplicationLogic(self.host.logic)
        logic.SetMRMLScene(self.host.scene)
        node = logic.AddViewNode("View1")
        node.SetBoxVisible(False)
        node.SetAxisLabelsVisible(False)
        self.host.logic.GetViewLogics().AddItem(logic)
        self._managers(slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance(), renderer, node)
        renderer.SetBackground(0.45, 0.47, 0.75)
        renderer.SetBackground2(0.75, 0.76, 0.90)
        renderer.GradientBackgroundOn()
        window.Render()
        camera = renderer.GetActiveCamera()
        camera.SetFocalPoint(0.0, 0.0, 0.0)
        camera.SetPosition(0.0, 1.0, 0.0)  # from in front: the patient's left is on the right
        camera.SetViewUp(0.0, 0.0, 1.0)
        renderer.ResetCamera()
        camera.Zoom(_fill(renderer.ComputeVisiblePropBounds(), camera))
        renderer.ResetCameraClippingRange()
        self.keep.append(logic)
        return self._pixels(window)


def _fill(bounds: tuple[float, ...], camera: Any) -> float:
    """How much nearer a camera in front may go than ResetCamera puts it, which fits a sphere around everything."""
    width, depth, height = (max(bounds[2 * i + 1] - bounds[2 * i], 1e-3) for i in range(3))
    sphere = math.hypot(width, depth, height)
    # The front side is nearer than the middle, and looks larger.
    nearer = 1 - depth / 2 / camera.GetDistance()
    return 0.95 * nearer * sphere / max(width, height)


def _middle(segmentations: list[Any], volume: Any) -> tuple[float, float, float]:
    bounds = [0.0] * 6
    for node in segmentations or [volume]:
        node.GetRASBounds(bounds)
        if bounds[0] <= bounds[1]:
            break
    return tuple((bounds[2 * i] + bounds[2 * i + 1]) / 2 for i in range(3))


def _compose(views: list[Any], options: dict[str, Any]) -> Any:
    from PySide6 import QtCore, QtGui

    size, bar = options["view_size"], 24
    panel = QtGui.QImage(options["panel"]) if options["panel"] else None
    left = round(panel.width() * 2 * size / panel.height()) if panel else 0
    picture = QtGui.QImage(left + 2 * size, 2 * size + bar, QtGui.QImage.Format.Format_RGB32)
    picture.fill(QtGui.QColor("white"))
    painter = QtGui.QPainter(picture)
    if panel:
        painter.setRenderHint(QtGui.QPainter.RenderHint.SmoothPixmapTransform)
        painter.drawImage(QtCore.QRect(0, 0, left, 2 * size), panel)
    for index, (pixels, colour) in enumerate(zip(views, _BARS, strict=True)):
        image = QtGui.QImage(pixels.data, size, size, 3 * size, QtGui.QImage.Format.Format_RGB888)
        corner = QtCore.QPoint(left + index % 2 * size, index // 2 * size)
        painter.drawImage(corner, image)
        painter.fillRect(QtCore.QRect(corner, QtCore.QSize(size, 5)), QtGui.QColor(colour))
    painter.setPen(QtGui.QColor("black"))
    painter.drawText(8, 2 * size + bar - 7, options["caption"])
    painter.end()
    return picture


def _render(scene_file: str, picture_file: str, options: dict[str, Any]) -> None:
    from . import boot

    host = boot()
    if not host.scene.ReadFromMRB(scene_file):
        raise RuntimeError(f"{scene_file} could not be read.")
    slicer = host.slicer
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    volume = next((v for v in volumes if not v.IsA("vtkMRMLLabelMapVolumeNode") and v.GetImageData()), None)
    if volume is None:
        raise RuntimeError("The scene has no volume to show.")
    segmentations = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    for segmentation in segmentations:
        segmentation.CreateDefaultDisplayNodes()
        if options["surfaces"]:
            segmentation.CreateClosedSurfaceRepresentation()
    views = _Views(host, options["view_size"])
    centre = tuple(options["centre"]) if options["centre"] else _middle(segmentations, volume)
    red, green, yellow = (views.slice_view(name, plane, volume, centre) for name, plane in _SLICES.items())
    picture = _compose([red, views.view_3d(), green, yellow], options)
    partial = f"{picture_file}.part.png"
    if not picture.save(partial):
        raise RuntimeError(f"{partial} could not be written.")
    Path(partial).replace(picture_file)
    host._end()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scene")
    parser.add_argument("picture")
    parser.add_argument("options", type=json.loads)
    arguments = parser.parse_args()
    code = 1
    try:
        _render(arguments.scene, arguments.picture, arguments.options)
        code = 0
    except Exception:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
