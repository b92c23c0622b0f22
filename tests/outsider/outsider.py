"""
Plays a stranger who knows only the wheels: installs them, and does what the docs say.

Builds the wheels of llmcore, its suite and the example plugin, installs them into a
fresh virtual environment in a temporary folder, and runs an author's commands there.
The first command that fails ends it, with that command's exit code.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
EXAMPLE = ROOT / "plugins/llmcore-example"
PROJECTS = (ROOT, ROOT / "conformance_tests", EXAMPLE)

SUITE = "pytest -q --pyargs llmcore_conformance.suite --llmcore-backend=example"
WRITE = "from pathlib import Path as P; from llmcore_example.testing import write_model"

COMMANDS = (
    "pip check",
    "llmcore backends",
    f"python -c '{WRITE}; write_model(P(\"tale.markov\"))'",
    "llmcore run tale.markov 'there was a king' --backend example --max-tokens 40",
    "python app.py",
    "pytest -q tests",
    f"{SUITE} --llmcore-report=report.json",
    "llmcore conformance example",
)


def main() -> None:
    """Run it all in a folder that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="llmcore-outsider-") as name:
        folder = Path(name)
        shutil.copy(HERE / "app.py", folder)
        shutil.copytree(EXAMPLE / "tests", folder / "tests")
        environment = install(build(folder / "wheels"), folder / "venv")
        for command in COMMANDS:
            run(command, folder, environment)
        check_report(folder / "report.json")


def build(wheels: Path) -> list[str]:
    """Build the wheels; their paths."""
    for project in PROJECTS:
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
        subprocess.run(
            [*command, "--outdir", wheels, project],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return sorted(map(str, wheels.glob("*.whl")))


def install(wheels: list[str], folder: Path) -> dict[str, str]:
    """Install wheels into a new environment; the variables that use it."""
    venv.create(folder, with_pip=True)
    ours = ("PYTHON", "LLMCORE")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    path = os.pathsep.join([str(folder / "bin"), kept.get("PATH", os.defpath)])
    environment = kept | {"PATH": path, "VIRTUAL_ENV": str(folder), "COLUMNS": "88"}
    command = shlex.join(["pip", "install", "--quiet", *wheels])
    run(command, folder, environment)
    return environment


def run(command: str, folder: Path, environment: dict[str, str]) -> None:
    """Show a command and what it says; exit as it does if it fails."""
    print(f"\n$ {command}", flush=True)
    program, *arguments = shlex.split(command)
    found = shutil.which(program, path=environment["PATH"]) or program
    done = subprocess.run([found, *arguments], cwd=folder, env=environment, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def check_report(path: Path) -> None:
    """The report of the suite says that the plugin conforms."""
    profiles = json.loads(path.read_text("utf-8"))["profiles"]
    results = {profile["name"]: profile["result"] for profile in profiles}
    print(f"\n{results}")
    if {results["core"], results["multi-sequence"]} != {"success"}:
        sys.exit("the example plugin does not conform")


if __name__ == "__main__":
    main()
