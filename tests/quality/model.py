"""What a conversion costs a trained model: model.py DIT... [--formats F,...] [--ctq] [--json OUT]

DIT are folders that tiny_dit.py wrote, one for every seed. Quantizes the 12 linear layers of the blocks, and prints for
every format and method, as means over the seeds:
  weight   ||Q - W|| / ||W||, geometric mean over the layers
  output   ||X (Q - W)'|| / ||X W'|| on held-out inputs, over that of plain rounding, geometric mean over the layers
  v-err    ||v_q - v|| / ||v||, the model's own output on held-out images, and its ratio to plain rounding with the range
           over seeds and sets of images
  seconds  CPU time of the whole conversion of the 12 layers (2.36 M weights), one thread
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from program import METHODS, quantized, run, without_gram
from reference import geometric_mean, output_error, weight_error
from safetensors.torch import load_file, save_file
from tiny_dit import BATCH, DATA_SEED, LAYERS, TOKENS, batch, load

FORMATS = ["float8_e4m3fn", "int8_row", "int8_blockwise", "int8_convrot", "nvfp4", "mxfp8"]
EVAL_SEEDS = [DATA_SEED, DATA_SEED + 100, DATA_SEED + 200]
CTQ = {  # the same format in convert_to_quant
    "float8_e4m3fn": [], "int8_row": ["--int8", "--scaling_mode", "row"], "nvfp4": ["--nvfp4"], "mxfp8": ["--mxfp8"],
    "int8_blockwise": ["--int8", "--scaling_mode", "block"],
    "int8_convrot": ["--int8", "--convrot", "--scaling_mode", "row"]}


class Bed:
    """One trained model, its held-out inputs and the velocities that it ought to give."""

    def __init__(self, folder):
        self.model = load(folder / "weights.safetensors")
        recorded = folder / "calibration.safetensors"
        self.calibration = {None: None, "data": recorded, "moments": without_gram(recorded)}
        self.held_out = {name: x[TOKENS:] for name, x in load_file(folder / "inputs.safetensors").items()}
        self.weights = {name: self.model.get_submodule(name).weight.data.clone() for name in LAYERS}
        self.sets = []
        for seed in EVAL_SEEDS:
            generator = torch.Generator().manual_seed(seed)
            self.sets.append([batch(BATCH, generator) for _ in range(8)][4:])  # calibration took the first four
        self.wanted = [self.velocities(s) for s in self.sets]

    @torch.no_grad()
    def velocities(self, batches):
        return torch.cat([self.model(x, t, label) for x, t, label, _ in batches])

    def measure(self, values):
        """Weight error, held-out output error of every layer, velocity error of every set of images."""
        for name, q in values.items():
            self.model.get_submodule(name).weight.data.copy_(q)
        velocity = [((self.velocities(s) - v).norm() / v.norm()).item() for s, v in zip(self.sets, self.wanted)]
        for name, w in self.weights.items():
            self.model.get_submodule(name).weight.data.copy_(w)
        return {"weight": geometric_mean(weight_error(w, values[name]) for name, w in self.weights.items()),
                "output": [output_error(self.held_out[name], w, values[name]) for name, w in self.weights.items()],
                "velocity": velocity}


def ctq(weights, target, options):
    """convert_to_quant by its command line; the seconds are those of its process, imports (about 5 s) included."""
    command = os.environ.get("CTQ", "convert_to_quant").split()
    with tempfile.TemporaryDirectory() as folder:
        source, packed, plain = (Path(folder) / f"{name}.safetensors" for name in ("in", "packed", "plain"))
        save_file({f"{name}.weight": w.contiguous() for name, w in weights.items()}, source)
        before = os.times()
        result = subprocess.run([*command, "-i", source, "-o", packed, "--comfy_quant", "--device", "cpu",
                                 "--manual_seed", "1", *CTQ[target], *options],
                                capture_output=True, text=True, stdin=subprocess.DEVNULL,
                                env={**os.environ, "OMP_NUM_THREADS": "1"})
        after = os.times()
        if not packed.exists():
            raise RuntimeError(result.stdout[-1000:] + result.stderr[-2000:])
        run("convert", packed, "-o", plain, "--to", "fp32", "--preset", "none")
        values = load_file(plain)
        seconds = (after.children_user - before.children_user + after.children_system - before.children_system)
        return {name: values[f"{name}.weight"].float() for name in weights}, seconds


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def line(target, label, measured, plain):
    """A row of the table from the measurements of all models, beside those of plain rounding."""
    outputs = geometric_mean(e / p for m, b in zip(measured, plain) for e, p in zip(m["output"], b["output"]))
    ratios = [e / p for m, b in zip(measured, plain) for e, p in zip(m["velocity"], b["velocity"])]
    return (f"| {target} | {label} | {100 * mean(m['weight'] for m in measured):.3f} % | {outputs:.3f} | "
            f"{mean(v for m in measured for v in m['velocity']):.5f} | {mean(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f}) | "
            f"{mean(m['seconds'] for m in measured):.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dit", type=Path, nargs="+")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--ctq", action="store_true", help="convert_to_quant too (CTQ = its command); minutes a format")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    beds = [Bed(folder) for folder in options.dit]
    everything = {}
    print("| format | method | weight | output | v-err | ratio (range) | CPU s |\n|---|---|---|---|---|---|---|", flush=True)
    for target in options.formats.split(","):
        results = everything[target] = {}

        def add(label, convert):
            results[label] = []
            for bed in beds:
                values, seconds = convert(bed)
                results[label].append({**bed.measure(values), "seconds": seconds})
            print(line(target, label, results[label], results["effort 0"]), flush=True)

        for label, (flags, data) in METHODS.items():
            add(label, lambda bed: quantized(bed.weights, target, flags, bed.calibration[data]))
        if options.ctq:
            add("ctq --simple", lambda bed: ctq(bed.weights, target, ["--simple"]))
            add("ctq", lambda bed: ctq(bed.weights, target, []))
    if options.json:
        options.json.write_text(json.dumps(everything))
    sys.exit(check(everything))


# Velocity error over that of plain rounding, mean over models and sets of images.
TARGETS = {("float8_e4m3fn", "effort 3"): 0.85, ("nvfp4", "effort 3"): 0.70, ("int8_row", "effort 3"): 0.87,
           **{(target, label): 0.20 for target in FORMATS for label in ("effort 2, data", "effort 3, data")}}


def check(everything):
    missed = 0
    for (target, label), limit in TARGETS.items():
        if target not in everything:
            continue
        results = everything[target]
        ratio = mean(e / p for m, b in zip(results[label], results["effort 0"])
                     for e, p in zip(m["velocity"], b["velocity"]))
        missed += ratio > limit
        print(f"{target}, {label}: {ratio:.3f} of plain rounding, target {limit}: {'met' if ratio <= limit else 'MISSED'}")
    # Nothing may be worse than plain rounding that an effort chose.
    for target, results in everything.items():
        for label in (label for label in results if label.startswith("effort")):
            worst = max(e / p for m, b in zip(results[label], results["effort 0"])
                        for e, p in zip(m["velocity"], b["velocity"]))
            if worst > 1.1:
                missed += 1
                print(f"{target}, {label}: {worst:.3f} of plain rounding")
    return 1 if missed else 0


if __name__ == "__main__":
    main()
