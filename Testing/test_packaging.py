"""What is installed is complete, and what README says is true of it."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import DiffuSAMLib
from DiffuSAMLib import cli

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# With the pages that it sends its readers to.
PAGES = {
    path: path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "Docs").glob("*.md")))
}
# All string constants of the library, the constant parts of f-strings among them.
TEXTS = [
    node.value
    for path in sorted((ROOT / "DiffuSAMLib").glob("*.py"))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.Constant) and isinstance(node.value, str)
]
# A backslash goes on in the next line.
COMMANDS = sorted(
    {
        command
        for page in PAGES.values()
        for command in re.findall(r"^    diffusam (.+)$", page.replace("\\\n", " "), re.MULTILINE)
    }
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of a wheel, built from a copy so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "source"
    for name in ("DiffuSAMLib", "Resources"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE.txt"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--no-index", "-w", folder, source], check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def run_python(code: str, *, path: Path) -> str:
    """Standard output of a Python that knows no packages but those in `path`."""
    program = f"import sys; sys.path.insert(0, {str(path)!r})\n{code}"
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], check=True, capture_output=True, text=True, cwd=path
    )
    return result.stdout.strip()


def test_a_wheel_carries_every_bundled_file(installed: Path) -> None:
    wanted = {
        path.relative_to(ROOT)
        for folder in ("Backbones", "Terminology", "Weights")
        for path in (ROOT / "Resources" / folder).rglob("*")
        if path.suffix in (".yaml", ".json", ".md", ".safetensors")
    }
    assert Path("Resources/Weights/catalogue.json") in wanted
    for path in wanted:
        assert (installed / "DiffuSAMLib" / path).read_bytes() == (ROOT / path).read_bytes()


def test_an_installed_package_finds_its_bundled_files(installed: Path) -> None:
    code = (
        'from DiffuSAMLib.resources import resource_path; print(resource_path("Weights", "catalogue.json"))'
    )
    expected = installed / "DiffuSAMLib" / "Resources" / "Weights" / "catalogue.json"
    assert Path(run_python(code, path=installed)) == expected


def test_the_version_can_be_read_without_any_other_package(installed: Path) -> None:
    assert run_python("import DiffuSAMLib; print(DiffuSAMLib.__version__)", path=installed) == (
        DiffuSAMLib.__version__
    )


def test_a_wheel_carries_the_licences_and_the_command(installed: Path) -> None:
    (metadata,) = installed.glob("*.dist-info")
    licences = metadata / "licenses"
    assert "Apache License" in (licences / "LICENSE.txt").read_text(encoding="utf-8")
    for card in (ROOT / "Resources" / "Weights").glob("*.md"):
        assert "non-commercial" in (licences / card.relative_to(ROOT)).read_text(encoding="utf-8")
    assert "diffusam = DiffuSAMLib.cli:main" in (metadata / "entry_points.txt").read_text(encoding="utf-8")


def test_all_files_state_the_same_version() -> None:
    version = re.escape(DiffuSAMLib.__version__)
    for name, line in {
        "pyproject.toml": f'version = "{version}"',
        "CITATION.cff": f"version: {version}",
        "CHANGELOG.md": rf"## {version}\b.*",
    }.items():
        assert re.search(f"^{line}$", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE), name


def test_the_sam2_to_install_is_the_one_that_an_error_names() -> None:
    pinned = (ROOT / "requirements-sam2.txt").read_text(encoding="utf-8")
    (requirement,) = re.findall(r"^(\S+) --hash=sha256:[0-9a-f]{64}$", pinned, re.MULTILINE)
    assert any(requirement in text for text in TEXTS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_accepts_what_the_pages_show(command: str) -> None:
    cli._parser().parse_args(shlex.split(command))


def test_the_readme_shows_every_command() -> None:
    shown = {command.split()[0] for command in COMMANDS}
    assert {"segment", "evaluate", "train", "models", "demo"} <= shown


def test_the_python_of_the_readme_uses_names_that_exist() -> None:
    # The other one runs in 3D Slicer.
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (example,) = (text for text in examples if "import slicer" not in text)
    imports = [node for node in ast.parse(example).body if isinstance(node, ast.ImportFrom)]
    assert imports
    for node in imports:
        module = importlib.import_module(node.module or "")
        for name in node.names:
            assert hasattr(module, name.name), f"{node.module} has no {name.name}"


def test_the_messages_to_look_up_are_those_of_the_program() -> None:
    table = PAGES[ROOT / "Docs" / "troubleshooting.md"].partition("## Running")[2].partition("\n## ")[0]
    messages = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert messages
    for message in messages:
        for part in message.split("…"):
            assert any(part.strip() in text for text in TEXTS), message
