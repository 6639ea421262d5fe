"""ComfyUI's own code, headless on the CPU, from a checkout at a known commit."""

import importlib
import importlib.abc
import importlib.machinery
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path

# Merge of Comfy-Org/ComfyUI master of 22 August 2026 in patientx/ComfyUI-Zluda.
COMMIT = "8622f33e8dedf079fe5cedab15b3d2284113c555"

# Imported by ComfyUI at module level, used by no model that is tested here.
STAND_INS = ("torchvision", "torchaudio", "av")


class _StandIn(types.ModuleType):
    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        # A class, since some are used as a base class. It has no behaviour:
        # calling anything of it fails.
        value = type(name, (), {})
        setattr(self, name, value)
        return value


class _StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in STAND_INS:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _StandIn(spec.name)

    def exec_module(self, module):
        pass


def problem(folder):
    """Why `folder` is not the pinned ComfyUI, or None."""
    if not folder:
        return "COMFYUI_DIR is not set"
    if not (Path(folder) / "comfy" / "ops.py").is_file():
        return "COMFYUI_DIR holds no comfy/ops.py"

    def git(*args, **env):
        return subprocess.run(
            ["git", "-C", folder, *args], env={**os.environ, **env},
            capture_output=True, text=True)

    head = git("rev-parse", "HEAD").stdout.strip()
    if head != COMMIT:
        return f"COMFYUI_DIR is at commit {head or 'unknown'}, pinned is {COMMIT}"
    # Compare the files with the commit through an index of our own.
    with tempfile.TemporaryDirectory() as scratch:
        index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        git("read-tree", "HEAD", **index)
        git("update-index", "-q", "--refresh", **index)
        changed = git("diff-files", "--name-only", "--", "comfy/*.py", **index)
    if changed.returncode or changed.stdout.strip():
        return f"COMFYUI_DIR differs from the commit: {changed.stdout.split()[:3]}"
    return None


def load(folder):
    """Import comfy.*; returns a namespace of the modules the tests use."""
    sys.dont_write_bytecode = True  # leave the checkout as it is
    sys.meta_path.append(_StandInFinder())
    sys.path.insert(0, folder)
    # This module of the mirror installs packages when imported.
    sys.modules["comfy.zluda"] = types.ModuleType("comfy.zluda")
    argv, sys.argv = sys.argv, ["comfyui"]
    try:
        cli_args = importlib.import_module("comfy.cli_args")
        cli_args.args.cpu = True
        names = ["ops", "utils", "quant_ops", "sd", "lora", "model_detection",
                 "ldm.wan.model", "ldm.flux.model"]
        modules = {n.split(".")[1] if "." in n else n:
                   importlib.import_module("comfy." + n) for n in names}
    finally:
        sys.argv = argv
    return types.SimpleNamespace(**modules)
