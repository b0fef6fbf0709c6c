"""What the Extensions Index and CMake want of the extension, checked without either."""

from __future__ import annotations

import ast
import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from cmake_files import cmake_list
from PIL import Image

try:
    import tomllib
except ImportError:  # Python 3.10
    tomllib = None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parents[1]
MODULE = ROOT / "DiffuSAMSegment"
SOURCES = sorted([MODULE / "DiffuSAMSegment.py", *MODULE.glob("DiffuSAMSegmentLib/*.py")])
PAGES = [ROOT / "README.md", *sorted((ROOT / "Docs").glob("*.md"))]
# Within Slicer; the rest of what the module imports when it loads has to be the standard library.
SLICER = {"slicer", "qt", "ctk", "vtk", "DiffuSAMSegmentLib"}


def files(folder: Path, pattern: str, base: Path) -> set[str]:
    found = {path.relative_to(base).as_posix() for path in folder.glob(pattern) if path.is_file()}
    return {path for path in found if "__pycache__" not in path}


def test_every_file_of_the_module_is_installed() -> None:
    scripts = cmake_list(MODULE / "CMakeLists.txt", "MODULE_PYTHON_SCRIPTS")
    resources = cmake_list(MODULE / "CMakeLists.txt", "MODULE_PYTHON_RESOURCES")
    assert set(scripts) == files(MODULE, "**/*.py", MODULE)
    assert set(resources) == files(MODULE / "Resources", "**/*", MODULE)
    assert len(set(scripts + resources)) == len(scripts + resources)


def test_every_file_of_the_library_is_installed() -> None:
    scripts = cmake_list(ROOT / "CMakeLists.txt", "LIBRARY_PYTHON_SCRIPTS")
    resources = cmake_list(ROOT / "CMakeLists.txt", "LIBRARY_PYTHON_RESOURCES")
    assert set(scripts) == files(ROOT / "DiffuSAMLib", "**/*.py", ROOT)
    wanted = {
        path
        for name in ("Backbones", "Terminology", "Weights")
        for path in files(ROOT / "Resources" / name, "**/*", ROOT)
    }
    assert set(resources) == {path for path in wanted if not path.endswith(".py")} | {"requirements-sam2.txt"}
    assert len(set(scripts + resources)) == len(scripts + resources)


def test_the_module_and_the_library_do_not_install_the_same_file() -> None:
    of_module = set(cmake_list(MODULE / "CMakeLists.txt", "MODULE_PYTHON_RESOURCES"))
    assert not of_module & set(cmake_list(ROOT / "CMakeLists.txt", "LIBRARY_PYTHON_RESOURCES"))


def test_the_extension_is_described_as_the_index_reads_it() -> None:
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    entry = json.loads((ROOT / "DiffuSAMSegment.json").read_text(encoding="utf-8"))
    assert b"\r" not in (ROOT / "DiffuSAMSegment.json").read_bytes()
    assert re.search(r"^project\(DiffuSAMSegment\)$", text, re.MULTILINE)
    fields = dict(re.findall(r'^set\(EXTENSION_(\w+) "([^"\n]+)"\)$', text, re.MULTILINE))
    assert set(fields) == {"HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"}
    assert entry["build_dependencies"] == fields["DEPENDS"].split() == ["PyTorch"]
    assert entry["scm_url"] == fields["HOMEPAGE"] + ".git"
    assert entry["scm_url"].rsplit("/", 1)[1].startswith("Slicer")
    assert set(entry) == {
        "$schema",
        "build_dependencies",
        "build_subdirectory",
        "category",
        "scm_revision",
        "scm_url",
        "tier",
    }
    for key in ("ICONURL", "SCREENSHOTURLS"):
        for url in fields[key].split():
            assert url.startswith("https://raw.githubusercontent.com/")
            assert (ROOT / url.split("/main/")[1]).is_file()
    assert "## NEXT_MODULE" in text
    assert (ROOT / "LICENSE.txt").is_file()


def test_the_icon_has_the_size_that_the_index_wants() -> None:
    with Image.open(MODULE / "Resources" / "Icons" / "DiffuSAMSegment.png") as icon:
        assert (icon.format, icon.size) == ("PNG", (128, 128))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_loading_the_module_imports_nothing_that_slicer_lacks(source: Path) -> None:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    for node in tree.body:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        for name in names:
            top = name.split(".")[0]
            assert top in SLICER or top in sys.stdlib_module_names, f"{source.name} imports {name}"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_nothing_happens_while_the_module_loads(source: Path) -> None:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for node in tree.body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert isinstance(node, allowed) or is_docstring, f"{source.name}:{node.lineno}"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_python_of_a_slicer_that_is_too_old_reads_the_module(source: Path) -> None:
    # It is 3.9 before Slicer 5.12; the panel has to open there to say that a newer one is needed.
    tree = ast.parse(source.read_text(encoding="utf-8"), feature_version=(3, 9))
    strict = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and any(keyword.arg == "strict" for keyword in node.keywords)
    ]
    assert not strict, f"{source.name}:{strict}"


def test_no_file_is_longer_than_can_be_overseen() -> None:
    folders = (MODULE, ROOT / "DiffuSAMLib", ROOT / "Testing")
    for source in (file for folder in folders for file in folder.rglob("*.py")):
        assert len(source.read_text(encoding="utf-8").splitlines()) <= 400, source


@pytest.mark.skipif(tomllib is None, reason="tomllib came with Python 3.11")
def test_slicer_gets_the_same_packages_as_everyone_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (MODULE / "Resources" / "requirements.txt").read_text(encoding="ascii").splitlines()
    ours = {line for line in lines if line and not line.startswith("#")}
    # What builds sam2 is no dependency of the program; PyTorch comes through an extension of its own.
    torch = next(each for each in project["dependencies"] if each.startswith("torch"))
    assert ours - {"wheel", "setuptools>=61"} == set(project["dependencies"]) - {torch}
    installer = (MODULE / "DiffuSAMSegmentLib" / "installer.py").read_text(encoding="utf-8")
    assert f'TORCH_REQUIREMENT = "{torch.removeprefix("torch")}"' in installer
    # Slicer's reader of such files takes no remark behind a requirement.
    assert not any("#" in line for line in ours)


def test_the_panel_binds_parameters_that_exist() -> None:
    tree = ast.parse((MODULE / "DiffuSAMSegmentLib" / "parameter_node.py").read_text(encoding="utf-8"))
    node = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name.endswith("ParameterNode"))
    parameters = {
        n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    }
    ui = ET.parse(MODULE / "Resources" / "UI" / "DiffuSAMSegment.ui")
    bound = {
        each.findtext("string") or ""
        for each in ui.iter("property")
        if each.get("name") == "SlicerParameterName"
    }
    by_hand = {"prior", "skippedOrgans", "trainingStart"}
    by_hand |= {f"training{name}" for name in ("Volumes", "Segmentations", "Skipped", "Wanted")}
    assert bound == parameters - by_hand


def test_every_control_of_the_panel_is_explained() -> None:
    ui = ET.parse(MODULE / "Resources" / "UI" / "DiffuSAMSegment.ui")
    controls = ("QComboBox", "QPushButton", "QCheckBox", "QListWidget", "QTableWidget", "qMRML")
    for widget in ui.iter("widget"):
        kind, name = widget.get("class") or "", widget.get("name") or ""
        if kind.startswith(controls) and kind != "qMRMLWidget":
            tips = [p for p in widget.findall("property") if p.get("name") == "toolTip"]
            assert tips, f"{name} has no tooltip"


def test_what_the_code_asks_of_the_panel_is_there() -> None:
    ui = ET.parse(MODULE / "Resources" / "UI" / "DiffuSAMSegment.ui")
    names = {widget.get("name") for widget in ui.iter("widget")}
    code = (MODULE / "DiffuSAMSegment.py").read_text(encoding="utf-8")
    assert set(re.findall(r"self\.ui\.(\w+)", code)) <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_links_to_what_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, heading = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE) if heading else []
        assert not heading or heading in {re.sub(r"\W+", "-", title.lower()) for title in titles}, target


def test_the_messages_of_the_page_are_those_of_the_module() -> None:
    text = (ROOT / "Docs" / "slicer-module.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)` \|", text.partition("## Troubleshooting")[2], re.MULTILINE)
    constants = [
        node.value
        for path in [*SOURCES, *(ROOT / "DiffuSAMLib").glob("*.py")]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert len(messages) > 15
    for message in messages:
        for part in message.split("…"):
            assert any(part.strip() in constant for constant in constants), message


def test_the_page_explains_every_control() -> None:
    text = (ROOT / "Docs" / "slicer-module.md").read_text(encoding="utf-8")
    table = text.partition("## Every control")[2].partition("\n## ")[0]
    ui = ET.parse(MODULE / "Resources" / "UI" / "DiffuSAMSegment.ui")
    # Training has a page of its own.
    training = next(w for w in ui.iter("widget") if w.get("name") == "trainCollapsibleButton")
    others = set(training.iter("widget")) - {training}
    for widget in set(ui.iter("widget")) - others:
        own = next((p for p in widget.findall("property") if p.get("name") == "text"), None)
        kind = widget.get("class") or ""
        if own is not None and (kind.startswith("Q") or widget is training):
            assert (own.findtext("string") or "").rstrip(":") in table, widget.get("name")
