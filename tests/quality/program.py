"""Runs the converter as a user does, and decodes what it wrote."""
import os
import resource
import subprocess
import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file

PROGRAM = os.environ.get("MEZZOTINT", str(Path(__file__).resolve().parents[2] / "build" / "bin" / "mezzotint"))
# What the tables call it: options, and the calibration file: none, all of it ("data") or all but X'X ("moments").
METHODS = {
    "effort 0": (["--effort", "0"], None),
    "effort 1": (["--effort", "1"], None),
    "effort 2": (["--effort", "2"], None),
    "effort 3": (["--effort", "3"], None),
    "effort 1, data": (["--effort", "1"], "data"),
    "effort 3, moments": (["--effort", "3"], "moments"),
    "effort 2, data": (["--effort", "2"], "data"),
    "effort 3, data": (["--effort", "3"], "data"),
    "quip, effort 2": (["--optimizer", "quip", "--effort", "2"], None),
    "quip, effort 2, data": (["--optimizer", "quip", "--effort", "2"], "data"),
    "quip, effort 3, data": (["--optimizer", "quip", "--effort", "3"], "data"),
    "search": (["--optimizer", "search", "--effort", "2"], None),
}


def without_gram(calibration):
    """A copy beside a calibration file, of which X'X is left out."""
    path = Path(calibration).with_suffix(".moments.safetensors")
    kept = {name: tensor for name, tensor in load_file(calibration).items() if not name.endswith(".gram")}
    save_file(kept, path, metadata={"mezzotint_calibration": "1"})
    return path


def run(*args):
    """CPU seconds of the program."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if result.returncode != 0:
        raise RuntimeError(f"{args}: exit {result.returncode}\n{result.stdout}{result.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def quantized(weights, target, options=(), calibration=None):
    """Values of the codes that `convert --to target` finds for every matrix of `weights`, and its CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        source, packed, plain = (Path(folder) / f"{name}.safetensors" for name in ("in", "packed", "plain"))
        save_file({f"{name}.weight": w.contiguous() for name, w in weights.items()}, source)
        data = ["--calibration", calibration] if calibration else []
        seconds = run("convert", source, "-o", packed, "--to", target, "--preset", "none", "--include", r"blocks\..*",
                      "-j", 1, *options, *data)
        run("convert", packed, "-o", plain, "--to", "fp32", "--preset", "none")
        missing = {f"{name}.comfy_quant" for name in weights} - set(load_file(packed))
        if missing:
            raise RuntimeError(f"{target}: not quantized: {sorted(missing)}")
        values = load_file(plain)
        return {name: values[f"{name}.weight"].float() for name in weights}, seconds
