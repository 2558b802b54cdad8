"""What `python -m build` makes is the whole product."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from launcher import __version__

ROOT = Path(__file__).parents[1]


def test_the_wheel_has_everything_and_its_command_works(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        packed.extractall(tmp_path / "unpacked")
        entry = packed.read(f"launcher-{__version__}.dist-info/entry_points.txt").decode()
    tracked = subprocess.run(
        ["git", "ls-files", "src/launcher"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert {path.removeprefix("src/") for path in tracked} <= names
    assert "launcher/py.typed" in names
    assert "launcher = launcher.cli.main:main" in entry
    said = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            "import sys; sys.path.insert(0, sys.argv.pop(1)); import launcher.__main__",
            str(tmp_path / "unpacked"),
            "--version",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    assert __version__ in said.stdout
