"""Static check of a scripted module's Python and .ui files: does all that they name exist in Slicer?

python -m slicer_host.check_module PATH_OF_THE_MODULE_FOLDER
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import pythonqt

qt = pythonqt.install()

from . import check_ui  # noqa: E402
from .check_ui import Finding, UiFile  # noqa: E402
from .facts import facts  # noqa: E402

# What a file may import when it is loaded; reviewers of the Extensions Index look at it.
_AT_FILE_SCOPE = {
    "slicer",
    "vtk",
    "qt",
    "ctk",
    "numpy",
    "SimpleITK",
    "scipy",
    "vtkSegmentationCore",
    "vtkITK",
}
_SLICER_NAMES = {
    "app", "cli", "i18n", "logic", "modules", "moduleNames", "mrmlScene", "packaging", "parameterNodeWrapper",
    "ScriptedLoadableModule", "selfTests", "testing", "util",
}  # fmt: skip
_WRAPPER_NAMES = {
    "AddObserver", "EndModify", "Modified", "RemoveObserver", "StartModify", "allParameters", "connectGui",
    "connectParametersToGui", "dataType", "default", "disconnectGui", "getValue", "isCached", "parameterNode",
    "setValue",
}  # fmt: skip


# Where a text becomes visible to the user, who reads it in the language of the application.
_SHOWN_PROPERTIES = {
    "acknowledgementText", "helpText", "placeholderText", "text", "title", "toolTip", "windowTitle",
}  # fmt: skip
_SHOWING_CALLS = {
    "QAction", "QCheckBox", "QGroupBox", "QLabel", "QPushButton", "QRadioButton", "addItem", "setText", "setToolTip",
    "setWindowTitle",
}  # fmt: skip


def _dotted(node: ast.AST) -> str:
    """`a.b.c` of an expression of names and dots only, else an empty text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := _dotted(node.value)):
        return f"{base}.{node.attr}"
    return ""


def _parameter_classes(tree: ast.AST) -> Iterator[ast.ClassDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            names = [_dotted(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list]
            if any(n.rpartition(".")[2] == "parameterNodeWrapper" for n in names):
                yield node


def _members(cls: ast.ClassDef) -> dict[str, ast.AnnAssign]:
    return {
        e.target.id: e for e in cls.body if isinstance(e, ast.AnnAssign) and isinstance(e.target, ast.Name)
    }


class _Checker(ast.NodeVisitor):
    """One Python file."""

    def __init__(
        self, file: Path, tree: ast.Module, ui_files: list[UiFile], parameters: set[str], local: set[str]
    ) -> None:
        self.file, self.tree, self.local = file, tree, local
        self.widgets = {name: cls for ui in ui_files for name, cls in ui.widgets.items()}
        self.parameters = parameters
        self.findings: list[Finding] = []
        self._stored: set[str] = set()  # names that Python code itself puts into self.ui

    def run(self) -> list[Finding]:
        for node in ast.walk(self.tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and self._is_ui(node.value)
            ):
                self._stored.add(node.attr)
        self._check_file_scope(self.tree.body)
        for cls in _parameter_classes(self.tree):
            self._check_parameter_types(cls)
        self.visit(self.tree)
        return self.findings

    def _find(self, node: ast.AST, kind: str, message: str) -> None:
        self.findings.append(Finding(self.file, getattr(node, "lineno", 1), kind, message))

    @staticmethod
    def _is_ui(node: ast.AST) -> bool:
        return (isinstance(node, ast.Name) and node.id == "ui") or (
            isinstance(node, ast.Attribute) and node.attr == "ui"
        )

    def _widget(self, node: ast.AST) -> str | None:
        """The class of `self.ui.someWidget`, if the expression is one."""
        if isinstance(node, ast.Attribute) and self._is_ui(node.value) and node.attr not in self._stored:
            return self.widgets.get(node.attr)
        return None

    def _check_file_scope(self, body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test):
                self._check_file_scope(node.body + node.orelse)
            elif isinstance(node, ast.Try):
                self._check_file_scope(node.body + node.orelse + node.finalbody)
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                top = name.partition(".")[0]
                if top not in _AT_FILE_SCOPE | self.local and top not in sys.stdlib_module_names:
                    self._find(
                        node, "import", f"{name} is imported when the file is loaded; it may be missing."
                    )

    def _check_parameter_types(self, cls: ast.ClassDef) -> None:
        for name, member in _members(cls).items():
            for part in ast.walk(member.annotation):
                if isinstance(part, ast.BinOp) and isinstance(part.op, ast.BitOr):
                    message = f"{name}: Slicer's wrapper takes Optional[...] and Union[...], not a | b."
                    self._find(member, "parameter-type", message)
                    break

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module == "slicer":
            for alias in node.names:
                self._check_slicer_name(node, alias.name)
        elif node.module == "slicer.util":
            for alias in node.names:
                self._check_util_name(node, alias.name)
        self.generic_visit(node)

    def _check_slicer_name(self, node: ast.AST, name: str) -> None:
        slicer = _real_slicer()
        if name in _SLICER_NAMES or name in facts().classes or slicer is None:
            return
        if not hasattr(slicer, name):
            self._find(node, "slicer-name", f"slicer.{name} does not exist.")

    def _check_util_name(self, node: ast.AST, name: str) -> None:
        if name not in facts().util_names and name not in (
            "DATA_STORE_URL",
            "TESTING_DATA_URL",
            "EXIT_SUCCESS",
            "EXIT_FAILURE",
        ):
            self._find(node, "util-name", f"slicer.util.{name} does not exist.")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        dotted = _dotted(node)
        parts = dotted.split(".")
        if dotted.startswith("slicer.util.") and len(parts) == 3:
            self._check_util_name(node, parts[2])
        elif dotted.startswith("slicer.app.") and len(parts) == 3:
            known = check_ui.facts().names("qSlicerApplication") | set(dir(qt.QApplication))
            if parts[2] not in known:
                self._find(node, "app-name", f"slicer.app.{parts[2]} does not exist.")
        elif dotted.startswith("slicer.mrmlScene.") and len(parts) == 3:
            self._check_class_name(node, "vtkMRMLScene", parts[2])
        elif dotted.startswith("slicer.vtk") and len(parts) == 3:
            self._check_class_name(node, parts[1], parts[2])
        elif dotted.startswith("slicer.") and len(parts) == 2:
            self._check_slicer_name(node, parts[1])
        elif dotted.startswith("qt.") and len(parts) == 2 and not hasattr(qt, parts[1]):
            self._find(node, "qt-name", f"qt.{parts[1]} does not exist in PythonQt.")
        elif dotted.startswith("ctk.") and len(parts) == 2 and parts[1] not in facts().classes:
            self._find(node, "qt-name", f"ctk.{parts[1]} is not among the known classes.")
        if self._is_ui(node.value) and isinstance(node.ctx, ast.Load):
            if node.attr not in self.widgets and node.attr not in self._stored:
                self._find(node, "ui-object", f"no .ui file has a widget {node.attr}.")
        elif (
            isinstance(node.value, ast.Attribute) and node.value.attr == "_parameterNode" and self.parameters
        ):
            if node.attr not in self.parameters | _WRAPPER_NAMES:
                self._find(node, "parameter", f"the parameter node has no {node.attr}.")
        elif (cls := self._widget(node.value)) and node.attr not in check_ui.reachable(cls):
            self._find(node, "widget-name", f"{cls} shows no {node.attr} to Python.")
        self.generic_visit(node)

    def _check_class_name(self, node: ast.AST, cls: str, name: str) -> None:
        slicer = _real_slicer()
        if slicer is not None and hasattr(slicer, cls) and not hasattr(getattr(slicer, cls), name):
            self._find(node, "mrml-name", f"{cls} has no {name}.")

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            if isinstance(target, ast.Attribute) and (cls := self._widget(target.value)):
                writable = check_ui.properties(cls) | {"name"}
                if target.attr in check_ui.reachable(cls) and target.attr not in writable:
                    self._find(
                        node, "widget-name", f"{cls}.{target.attr} is no property; it cannot be assigned."
                    )
            if isinstance(target, ast.Attribute) and target.attr in _SHOWN_PROPERTIES:
                self._check_translated(node.value)
        self.generic_visit(node)

    def _check_translated(self, value: ast.expr) -> None:
        """Finds a plain text that is shown as it is, also as one of several alternatives."""
        if isinstance(value, ast.IfExp):
            self._check_translated(value.body)
            self._check_translated(value.orelse)
        elif isinstance(value, ast.BoolOp):
            for part in value.values:
                self._check_translated(part)
        elif any(letter.isalpha() for letter in _plain_text(value)):
            self._find(value, "untranslated", f"{_plain_text(value)!r} is shown without _().")

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        if _dotted(function).rpartition(".")[2] in _SHOWING_CALLS and node.args:
            self._check_translated(node.args[0])
        if isinstance(function, ast.Attribute):
            cls = self._widget(function.value)
            if cls and function.attr in check_ui.properties(cls):
                self._find(node, "property-called", f"{cls}.{function.attr} is a property, not a function.")
            elif function.attr in ("connect", "disconnect") and node.args and _text(node.args[0]):
                self._check_signal(node, cls, _text(node.args[0]))
            elif (
                function.attr == "emit"
                and node.args is not None
                and not _dotted(function).startswith("self.sig")
            ):
                self._find(node, "emit", "PythonQt's signals have no emit().")
            elif function.attr == "resourcePath" and node.args and _text(node.args[0]):
                self._check_resource(node, _text(node.args[0]))
            if _dotted(function).startswith("slicer.util."):
                self._check_keywords(node, function.attr)
            if function.attr == "pip_install" and any("torch" in ast.dump(a) for a in node.args):
                self._find(node, "torch", "PyTorch is installed through PyTorchUtils, not by pip_install.")
        elif isinstance(function, ast.Name) and function.id == "_" and node.args and not _text(node.args[0]):
            self._find(node, "translation", "_() needs a plain text; use _(...).format(...).")
        self.generic_visit(node)

    def _check_signal(self, node: ast.Call, cls: str | None, signal: str) -> None:
        known = check_ui.signals(cls) if cls else _all_signals()
        if signal.replace(" ", "") not in known:
            self._find(node, "signal", f"{cls or 'no class'} has {'no' if cls else 'a'} signal {signal}.")

    def _check_resource(self, node: ast.Call, name: str) -> None:
        folders = [p / "Resources" for p in (self.file.parent, *self.file.parents[1:3])]
        if not any((folder / name).exists() for folder in folders):
            self._find(node, "resource", f"there is no Resources/{name}.")

    def _check_keywords(self, node: ast.Call, name: str) -> None:
        slicer = _real_slicer()
        function: Any = getattr(getattr(slicer, "util", None), name, None)
        if not callable(function):
            return
        parameters = inspect.signature(function).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            for keyword in node.keywords:
                if keyword.arg and keyword.arg not in parameters:
                    self._find(node, "util-argument", f"slicer.util.{name}() takes no {keyword.arg}.")


def _text(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _plain_text(node: ast.AST) -> str:
    """Of a text, or the fixed parts of an f-string."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    return _text(node)


def _all_signals() -> frozenset[str]:
    return pythonqt.qt_signals() | {s for name in facts().classes for s in facts().signals(name)}


def _real_slicer() -> Any:
    """slicer-core's names, where it is installed; without it those of MRML classes are not checked."""
    try:
        import slicer
    except ImportError:
        return None
    return slicer


def check(path: str | Path, *, local: tuple[str, ...] = ()) -> list[Finding]:
    """Findings in a module's folder (all .py and .ui files below it), in the order of files and lines.

    Args:
        path: the folder, or the module's .py file in it.
        local: further packages that come with the module.
    """
    path = Path(path)
    folder = path.parent if path.is_file() else path
    ui_files = [UiFile(p) for p in sorted(folder.rglob("*.ui"))]
    files = [p for p in sorted(folder.rglob("*.py")) if "Testing" not in p.relative_to(folder).parts]
    trees = {file: ast.parse(file.read_text(encoding="utf-8"), filename=str(file)) for file in files}
    own = {f.stem for f in files} | {p.name for p in folder.iterdir() if p.is_dir()} | set(local)
    parameters = {
        name for tree in trees.values() for cls in _parameter_classes(tree) for name in _members(cls)
    }
    findings = [f for ui in ui_files for f in ui.findings]
    for ui in ui_files:
        for widget, parameter in ui.parameters.items():
            if parameters and parameter.partition(".")[0] not in parameters:
                line = ui._line(f">{parameter}<")
                findings.append(
                    Finding(ui.path, line, "ui-parameter", f"{widget}: there is no parameter {parameter}.")
                )
    for file, tree in trees.items():
        findings += _Checker(file, tree, ui_files, parameters, own).run()
    return sorted(set(findings), key=lambda f: (str(f.file), f.line, f.message))


def main() -> int:
    findings = check(Path(sys.argv[1]), local=tuple(sys.argv[2:]))
    for finding in findings:
        print(finding)
    print(f"{len(findings)} findings")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
