#!/usr/bin/env python3
"""at::linear on our quantized tensors beside torch's linear and comfy-kitchen's QuantizedTensor (eager), on one core.

    bench/peers/run.sh linears [--m 1,16,1024] [--n 3072] [--k 3072] [--rounds 3] [--seconds 0.5] [--wall]

Both sides have the same weight and activations, which libtorch's generator makes from the same seeds (their equality is
checked), and take turns: mezzotint-bench runs as a program between the rounds of kitchen. Times are the thread's, unless
--wall; the best of all rounds. A format that kitchen does not have, or cannot multiply on a CPU, stands beside torch alone.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))  # torch reads them

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from comfy_kitchen.tensor import QuantizedTensor  # noqa: E402

from common import Clock  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
LAYOUTS = {"float8_e4m3fn": "TensorCoreFP8Layout", "int8_tensorwise": "TensorWiseINT8Layout",
           "mxfp8": "TensorCoreMXFP8Layout", "nvfp4": "TensorCoreNVFP4Layout",
           "convrot_w4a4": "TensorCoreConvRotW4A4Layout", "asym_w4a8_int8": "AsymW4A8Int8Layout"}
# What ComfyUI quantizes activations with, where it does so itself in front of the product.
INPUTS = {"float8_e4m3fn": "TensorCoreFP8Layout"}


def normal(shape, deviation, seed):
    """What mezzotint-bench makes (src/mezzotint/run/bench/setup.cpp)."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul_(deviation).to(torch.bfloat16)


def relative(y, exact):
    return float((y.double() - exact.double()).norm() / exact.double().norm())


class Kitchen:
    """A layer of kitchen's in one format."""

    def __init__(self, name, w):
        self.name = name
        self.w = QuantizedTensor.from_float(w, LAYOUTS[name])

    def run(self, x):
        if self.name in INPUTS:
            x = QuantizedTensor.from_float(x, INPUTS[self.name])
        return F.linear(x, self.w)


def ours(options, m, folder):
    file = Path(folder) / "ours.json"
    command = [options.bin / "mezzotint-bench", "wan", "--model", f"{options.k}x{options.n}", "--m", str(m), "--only", "layers",
               "--threads", "1", "--seconds", str(options.seconds * 12), "--rounds", "3", "--no-fp32", "--json", file]
    command += [] if options.wall else ["--cpu-time"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"mezzotint-bench failed: {done.stdout}{done.stderr}")
    table = next(t for t in json.loads(file.read_text(encoding="utf-8"))["layers"] if (t["n"], t["k"]) == (options.n, options.k))
    return {row["name"]: row for row in table["rows"]}


def compare(options, m, folder):
    w = normal((options.n, options.k), options.k ** -0.5, 1)
    x = normal((m, options.k), 1, 2)
    checked = torch.arange(0, m, -(-m // 64))
    exact = x[checked].float() @ w.float().t()
    kitchens, errors = {}, {}
    for name in LAYOUTS:
        try:
            layer = Kitchen(name, w)
            errors[name] = relative(layer.run(x)[checked], exact)
            if errors[name] > 0.3:
                raise ValueError(f"error {errors[name]:.2g}")
            kitchens[name] = layer
        except Exception as why:  # noqa: BLE001: whatever another program cannot do
            print(f"  kitchen cannot {name}: {type(why).__name__}: {str(why).splitlines()[0] if str(why) else ''}")
    clock = Clock(options.seconds, not options.wall)
    best, dense, theirs = {}, [], {}
    for _ in range(options.rounds):
        for name, row in ours(options, m, folder).items():
            if name not in best or row["best_ms"] < best[name]["best_ms"]:
                best[name] = row
        dense.append(1e3 * min(clock.times(lambda: F.linear(x, w))))
        for name, layer in kitchens.items():
            theirs.setdefault(name, []).append(1e3 * min(clock.times(lambda layer=layer: layer.run(x))))
    torch_error = relative(F.linear(x, w)[checked], exact)
    if abs(torch_error / best["bf16"]["error"] - 1) > 1e-5:
        sys.exit(f"the inputs differ: torch's error is {torch_error} here and {best['bf16']['error']} in mezzotint-bench")
    print(f"\nM {m}, N {options.n}, K {options.k}: torch bf16 linear {best['bf16']['best_ms']:.3f} ms in our program, "
          f"{min(dense):.3f} ms in Python (median {statistics.median(dense):.3f})")
    print(f"  {'':<26} {'ms':>8} {'error':>9} {'x bf16':>7}   {'kitchen ms':>10} {'error':>9} {'ratio':>7}")
    for name, row in best.items():
        if name == "bf16":
            continue
        line = f"  {name:<26} {row['best_ms']:8.3f} {row['error']:9.2e} {best['bf16']['best_ms'] / row['best_ms']:6.2f}x"
        if name in theirs:
            line += f"   {min(theirs[name]):10.3f} {errors[name]:9.2e} {min(theirs[name]) / row['best_ms']:6.1f}x"
        print(line, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--m", default="1,16,1024")
    parser.add_argument("--n", type=int, default=3072)
    parser.add_argument("--k", type=int, default=3072)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.3, help="of every way to compute, a round")
    parser.add_argument("--wall", action="store_true", help="the clock's time")
    parser.add_argument("--bin", type=Path, default=ROOT / "build/bin", metavar="DIR")
    options = parser.parse_args()
    options.bin = options.bin.resolve()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as folder:
        for m in options.m.split(","):
            compare(options, int(m), folder)


if __name__ == "__main__":
    main()
