"""What holds the project together: import directions, light start-up, Dockerfile, README, what ships."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gddim_cli
from gddim_cli.hub.load import load
from gddim_cli.hub.store import bundled_folder, card_of

ROOT = Path(__file__).parent.parent
PACKAGE = Path(gddim_cli.__file__).parent

# From the ground up: a room may import from those before it, and from itself.
ROOMS = [
    "errors", "settings", "runtime", "numerics", "diffusions", "samplers", "models", "checkpoints", "hub", "images", "pages",
    "runs", "evaluation", "api", "training", "verification", "bench", "cli", "__main__",
]  # fmt: skip
MOST_ARROWS = 100
HEAVY = {"torch", "numpy", "scipy", "PIL", "msgspec", "yaml", "safetensors", "cleanfid", "matplotlib", "filelock"}


def imports(path: Path) -> set[str]:
    """Everything of the package that a file imports, anywhere in it, by its first name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module] if node.module != "gddim_cli" else [f"gddim_cli.{a.name}" for a in node.names]
        found |= {module.split(".")[1] for module in modules if module.startswith("gddim_cli.")}
    return found


def arrows() -> set[tuple[str, str]]:
    """Pairs of rooms of which the first imports from the second."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        found |= {(name, other) for other in imports(path) - {"__version__", name}}
    return {pair for pair in found if pair[0] != "__init__"}


def test_imports_run_one_way() -> None:
    inside = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert inside - {"__init__"} == set(ROOMS)
    upward = [(room, other) for room, other in arrows() if ROOMS.index(other) > ROOMS.index(room)]
    assert not upward
    assert len(arrows()) <= MOST_ARROWS


def test_samplers_know_no_networks_and_diffusions_no_samplers() -> None:
    assert not [
        other for room, other in arrows() if room == "samplers" and other in ("models", "checkpoints", "images")
    ]
    for path in (PACKAGE / "models" / "networks").rglob("*.py"):
        assert not imports(path) & {"diffusions", "samplers", "numerics"}, path


def test_samplers_are_prepared_from_names_in_one_place() -> None:
    found = re.compile(r"spec\w*\.prepare\(|find_sampler\([^)]*\)\.prepare\(|SAMPLERS\[[^]]*\]\.prepare\(")
    paths = [*PACKAGE.rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    assert [path.name for path in paths for _ in found.findall(path.read_text())] == ["prepare.py"]


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = "import sys; sys.argv = ['gddim', '--help']\nfrom gddim_cli.cli.main import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += f"sys.exit(str(sorted({HEAVY!r} & set(sys.modules)) or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) in ((0, ""), (1, "")), done.stderr


def test_the_dockerfile_copies_and_calls_what_there_is() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    # All that the build reads is copied.
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"], "gddim_cli"}
    needed |= set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"])
    assert needed <= set(copied)
    assert 'ENTRYPOINT ["gddim"]' in lines
    assert project["project"]["scripts"]["gddim"] == "gddim_cli.cli.main:main"
    python = re.match(r"FROM python:3\.(\d+)", lines[0])
    assert python
    assert int(python[1]) >= int(project["project"]["requires-python"].split(".")[1])


def test_the_readme_names_only_commands_that_exist(gddim) -> None:
    text = (ROOT / "README.md").read_text()
    blocks = "".join(re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    commands = set(re.findall(r"gddim ([a-z]+)", blocks))
    assert commands >= {"sample", "coefficients", "train"}
    for command in commands:
        assert gddim(command, "--help").status == 0, command


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]), ids=lambda page: page.name)
def test_links_and_pictures_of_the_documentation_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    pictures = [(path, "") for path in re.findall(r'<img src="([^"]*)"', text)]
    for path, anchor in [*re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text), *pictures]:
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def test_the_bundled_checkpoint_is_small_and_is_what_its_card_says() -> None:
    import torch

    path = bundled_folder() / "mnist.safetensors"
    assert path.stat().st_size < 5_000_000
    model, card = load("mnist", torch.device("cpu")), card_of("mnist")
    assert model.sha256 == card.sha256
    for key in ("data", "steps", "hours", "machine"):
        assert card.training[key]
    assert set(card.license) == {"weights", "data"}


@pytest.mark.slow
def test_the_wheel_works_from_another_folder(tmp_path: Path) -> None:
    """The built wheel, unpacked, samples from its own bundled checkpoint without the source tree."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(tmp_path), str(ROOT)],
        check=True,
    )
    (wheel,) = tmp_path.glob("gddim-*.whl")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(tmp_path / "site")], check=True)
    env = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    cell = ["--nfe", "5", "--num", "2", "--sampler", "gddim", "--order", "0"]
    calls = [
        ["sample", "--nfe", "5", "--num", "2", "--out", "imgs", "--checkpoint", "mnist"],
        ["fid", "imgs"],
        ["sample", "--nfe", "5", "--num", "2", "--out", "tuned", "--checkpoint", "mnist", "--solver", "auto"],
        ["bench", *cell, "--checkpoint", "mnist", "--ref", "mnist", "--out", "bench"],
        ["bench", "--table", "3", "--checkpoint", "mnist", "--ref", "mnist", "--print-plan"],
    ]
    for words in calls:
        call = [sys.executable, "-m", "gddim_cli", *words]
        done = subprocess.run(call, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "imgs" / "grid.png").exists()
    for name in ("fid_vs_nfe.png", "samples.png", "report.html"):  # the page's template ships, too
        assert (tmp_path / "bench" / name).exists()
