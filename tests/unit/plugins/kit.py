"""Writes real installed distributions into a folder on ``sys.path``."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from llmcore.plugins import PluginProblem, Registry
from llmcore.plugins.discovery import forget_what_was_found

HEAD = """
from llmcore.hookspecs import hookimpl
from llmcore.values import BackendInfo
"""

ENGINE = """
from llmcore.spi import Backend

class Engine(Backend):
    def devices(self):
        return []

    def load_model(self, path, params, progress):
        raise NotImplementedError

    def close(self):
        pass
"""

GPU = "gpus = [Device(name='X0', kind='gpu', api='{}', total=2, free=1)]"
CPU = "gpus = [Device(name='CPU', kind='cpu')]"


def engine_code(start: str = "", devices: str = CPU) -> str:
    """An engine that runs ``start`` when it is made, and has some devices."""
    return (
        f"from llmcore.values import Device\n{ENGINE}"
        f"    def __init__(self):\n{textwrap.indent(start or 'pass', ' ' * 8)}\n"
    ).replace("return []", f"{devices}\n        return gpus")


def plugin_code(
    name: str = "mine", factory: str = "engine:Engine", **info: object
) -> str:
    """A plugin module with one backend."""
    fields = {"name": name, "factory": factory, **info}
    arguments = ", ".join(f"{key}={value!r}" for key, value in fields.items())
    return (
        f"{HEAD}\nINFO = BackendInfo({arguments})\nCALLS = []\n\n"
        "@hookimpl\ndef llmcore_backend_info():\n"
        "    CALLS.append(1)\n    return INFO\n"
    )


class Site:
    """A folder that is searched for modules and for distributions."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, module: str, code: str) -> None:
        """Write a module."""
        (self.root / f"{module}.py").write_text(code, "utf-8")
        forget_what_was_found()

    def install(
        self,
        distribution: str = "llmcore-mine",
        code: str | None = None,
        *,
        plugin: str = "mine",
        module: str = "",
        metadata: str = "",
    ) -> str:
        """Install a distribution with one plugin and return the name of its module."""
        module = module or f"{distribution}_{plugin}".replace("-", "_")
        self.write(module, plugin_code(plugin) if code is None else code)
        self.describe(
            distribution,
            entry_points=f"[llmcore.backends]\n{plugin} = {module}\n",
            metadata=metadata,
        )
        return module

    def describe(
        self,
        distribution: str,
        *,
        entry_points: str = "",
        version: str = "1.0",
        metadata: str = "",
    ) -> None:
        """Install a distribution without any module."""
        folder = f"{distribution.replace('-', '_')}-{version}.dist-info"
        about = self.root / folder
        about.mkdir()
        head = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        (about / "METADATA").write_text(head + metadata)
        (about / "entry_points.txt").write_text(entry_points)
        (about / "RECORD").write_text(f"{folder}/METADATA,,\n")
        forget_what_was_found()

    def run(self, program: str, **environment: str) -> str:
        """What a fresh interpreter prints that sees this folder."""
        path = os.pathsep.join([str(self.root), *sys.path])
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            env=os.environ | {"PYTHONPATH": path} | environment,
        )
        return done.stdout.strip()


def problem_of(registry: Registry) -> PluginProblem:
    """The only problem there is."""
    [problem] = registry.problems
    return problem
