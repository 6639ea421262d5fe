"""Errors of layers of real shapes (Wan 2.2 5B): layers.py [--shapes 3072x3072,...] [--formats F,...] [--ctq] [--ctq-default]

Synthetic weights with low-rank structure and outlier columns (reference.py), inputs with outlier channels; 2048 tokens for
calibration, 512 held out. A row gives
  weight   ||Q - W|| / ||W||
  output   ||X (Q - W)'|| / ||X W'|| on held-out inputs
  seconds  CPU time of the whole program, one thread (ctq: its imports are about 5 s)
With data, effort 3 must lower the output's error to TARGET of plain rounding's. --ctq adds convert_to_quant --simple, --ctq-default its learned rounding, too: minutes a layer.
"""
import argparse
import sys
import tempfile
from pathlib import Path

import torch
from model import FORMATS, ctq
from program import METHODS, quantized
from reference import inputs, output_error, weight_error, weights
from synthetic import NAME, record

SHAPES = "3072x3072"  # also in this model: 14336x3072, 3072x14336
HELD_OUT = 512
TARGET = 0.60  # error of the output with data at effort 3, over plain rounding's


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--methods", default="effort 0;effort 1;effort 2;effort 3;effort 2, data;effort 3, data")
    parser.add_argument("--ctq", action="store_true")
    parser.add_argument("--ctq-default", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    missed = []
    print("| layer | format | method | weight | output | CPU s |\n|---|---|---|---|---|---|", flush=True)
    for shape in options.shapes.split(","):
        rows, cols = map(int, shape.split("x"))
        w = weights("lowrank+oc", rows, cols)
        x, held_out = inputs(cols)
        held_out = held_out[:HELD_OUT]
        with tempfile.TemporaryDirectory() as folder:
            calibration = Path(folder) / "calibration.safetensors"
            if "data" in options.methods:
                record(x, calibration)

            def show(target, label, values, seconds):
                q = values[NAME]
                errors[label] = output_error(held_out, w, q)
                print(f"| {rows} x {cols} | {target} | {label} | {100 * weight_error(w, q):.3f} % | "
                      f"{100 * errors[label]:.3f} % | {seconds:.2f} |", flush=True)

            for target in options.formats.split(","):
                errors = {}
                for label in filter(None, options.methods.split(";")):
                    flags, data = METHODS[label]
                    show(target, label, *quantized({NAME: w}, target, flags, calibration if data else None))
                if options.ctq:
                    show(target, "ctq --simple", *ctq({NAME: w}, target, ["--simple"]))
                if options.ctq_default:
                    show(target, "ctq", *ctq({NAME: w}, target, []))
                if errors.get("effort 3, data", 0) > TARGET * errors.get("effort 0", 1):
                    missed.append(f"{shape} {target}")
    if missed:
        sys.exit("missed: " + ", ".join(missed))


if __name__ == "__main__":
    main()
