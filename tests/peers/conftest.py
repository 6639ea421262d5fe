"""Options and fixtures of the comparisons with other programs (README.md)."""

import importlib
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from peerlib import comfy_env, container, reference_converter  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--producer", choices=["mezzotint", "reference"], default="mezzotint",
                     help="who writes the files under test (reference: check of the harness)")


def missing_peer(reason):
    """A missing peer fails, so that a pass means that it was compared."""
    if os.environ.get("ALLOW_SKIP") == "1":
        pytest.skip(reason)
    pytest.fail(reason + " (ALLOW_SKIP=1 skips)", pytrace=False)


def need_module(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing_peer(f"peer {name} cannot be imported: {error}")


@pytest.fixture(scope="session")
def torch():
    module = need_module("torch")
    module.set_num_threads(2)
    return module


@pytest.fixture(scope="session")
def kitchen(torch):
    """comfy-kitchen, eager backend only."""
    module = need_module("comfy_kitchen")
    for name in module.list_backends():
        if name != "eager":
            module.registry.disable(name)
    return need_module("comfy_kitchen.tensor")


@pytest.fixture(scope="session")
def comfy(kitchen):
    folder = os.environ.get("COMFYUI_DIR", "")
    reason = comfy_env.problem(folder)
    if reason:
        missing_peer(reason)
    try:
        return comfy_env.load(folder)
    except ImportError as error:
        missing_peer(f"ComfyUI cannot be imported: {error}")


@pytest.fixture(scope="session")
def lycoris(torch):
    """LyCORIS's modules, one class for each algorithm."""
    return need_module("lycoris.modules")


@pytest.fixture(scope="session")
def ctq():
    """Command line of convert_to_quant in this environment."""
    need_module("convert_to_quant")
    return [sys.executable, "-m", "convert_to_quant.convert_to_quant"]


@pytest.fixture
def run_ctq(ctq, tmp_path):
    """Runs convert_to_quant on a file and gives the path of what it wrote."""
    def run(source, *options, output=None):
        output = output or tmp_path / f"ctq-{len(list(tmp_path.iterdir()))}.safetensors"
        result = subprocess.run([*ctq, "-i", str(source), "-o", str(output), *options],
                                capture_output=True, text=True, stdin=subprocess.DEVNULL,
                                timeout=900, env={**os.environ, "OMP_NUM_THREADS": "2"})
        assert result.returncode == 0, result.stderr[-2000:]
        # It exits 0 on many errors; the file is the evidence.
        assert output.exists(), result.stdout + result.stderr
        return output
    return run


class Program:
    """The program under test, as a user runs it."""

    def __init__(self, path):
        self.path = path

    def run(self, *args, expect=0):
        result = subprocess.run([self.path, *map(str, args)], capture_output=True,
                                text=True, stdin=subprocess.DEVNULL, timeout=600)
        assert result.returncode == expect, (
            f"{args}: exit {result.returncode}, expected {expect}\n"
            f"{result.stdout}\n{result.stderr}")
        return result.stdout + result.stderr

    def convert(self, source, target, output, include=None, extra=()):
        # Effort 0: the bytes of the reference.
        args = ["convert", source, "-o", output, "--to", target, "--effort", "0", *extra]
        if include:
            args += ["--include", include]
        self.last_text = self.run(*args)
        return container.read(output)


class Reference:
    def convert(self, source, target, output, include=None, extra=()):
        reference_converter.convert(
            source, output, target, include or reference_converter.DEFAULT_INCLUDE)
        return container.read(output)


@pytest.fixture(scope="session")
def producer(request):
    if request.config.getoption("--producer") == "reference":
        return Reference()
    path = os.environ.get("MEZZOTINT", "")
    if not os.access(path, os.X_OK):
        pytest.fail(f"no program at MEZZOTINT={path!r}: run make build", pytrace=False)
    return Program(path)


@pytest.fixture(scope="session")
def mezzotint(producer):
    """For what only the program does (inspect, verify, relabel)."""
    if not isinstance(producer, Program):
        pytest.skip("needs the program, --producer=reference was given")
    return producer


def beside_the_program(name):
    """The path of another program of the same build."""
    path = Path(os.environ.get("MEZZOTINT", "")).with_name(name)
    if not os.access(path, os.X_OK):
        pytest.fail(f"no program {path}: build {name}, with MEZZOTINT_TORCH", pytrace=False)
    return path


@pytest.fixture(scope="session")
def mezzotint_run(mezzotint):
    return beside_the_program("mezzotint-run")


@pytest.fixture(scope="session")
def bypass_layers(mezzotint):
    """tests/nn/layers/bypass_layers.cpp"""
    return beside_the_program("bypass_layers")


@pytest.fixture
def rng(request):
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


@pytest.fixture(scope="session")
def scratch():
    folder = Path(os.environ.get("PEERS_SCRATCH", "build/peers-data"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
