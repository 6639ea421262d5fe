"""What a low-rank correction wins back, and at what size: correction.py DIT... [--formats F,...]

DIT as for model.py, of which it uses the measures. For every conversion: as it is, and with a LoRA of `mezzotint correct`
computed beside the layers. "size" is that of the LoRA over that of the quantized layers.
"""
import argparse
import tempfile
from pathlib import Path

import torch
from model import Bed, mean
from program import run
from reference import geometric_mean
from safetensors.torch import load_file, save_file

CONVERSIONS = {"effort 1": (["--effort", "1"], False), "effort 3, data": (["--effort", "3"], True)}
CORRECTIONS = {"rank 32": (32, None), "rank 8, data": (8, "data"), "rank 32, data": (32, "data"),
               "rank 32, moments": (32, "moments"), "rank 64, data": (64, "data")}


class Converted:
    """The matrices of a model, converted to a format, and corrections of them."""

    def __init__(self, bed, target, options, calibrated, folder):
        self.bed, self.folder = bed, Path(folder)
        self.source, self.packed = self.folder / "in.safetensors", self.folder / "packed.safetensors"
        plain = self.folder / "plain.safetensors"
        save_file({f"{name}.weight": w.contiguous() for name, w in bed.weights.items()}, self.source)
        data = ["--calibration", bed.calibration["data"]] if calibrated else []
        run("convert", self.source, "-o", self.packed, "--to", target, "--preset", "none", "--include", r"blocks\..*",
            "-j", 1, "-f", *options, *data)
        run("convert", self.packed, "-o", plain, "--to", "fp32", "--preset", "none", "-f")
        self.values = {name: load_file(plain)[f"{name}.weight"] for name in bed.weights}

    def corrected(self, rank, data):
        lora = self.folder / "lora.safetensors"
        files = ["--calibration", self.bed.calibration[data]] if data else []
        seconds = run("correct", self.source, self.packed, "-o", lora, "--rank", rank, "-j", 1, "-f", *files)
        factors = load_file(lora)
        values = {}
        for name, q in self.values.items():
            key = f"diffusion_model.{name}"
            up, down = (factors.get(f"{key}.lora_{part}.weight") for part in ("up", "down"))
            values[name] = q if up is None else q + up.float() @ down.float()
        return values, lora.stat().st_size / self.packed.stat().st_size, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dit", type=Path, nargs="+")
    parser.add_argument("--formats", default="nvfp4,float8_e4m3fn,int8_row")
    options = parser.parse_args()
    torch.set_num_threads(1)
    beds = [Bed(folder) for folder in options.dit]
    print("| format | conversion | LoRA | size | weight | output | v-err | ratio (range) | CPU s |\n"
          "|---|---|---|---|---|---|---|---|---|", flush=True)
    for target in options.formats.split(","):
        for conversion, (flags, calibrated) in CONVERSIONS.items():
            with tempfile.TemporaryDirectory() as folder:
                rows = {}
                for bed in beds:
                    converted = Converted(bed, target, flags, calibrated, folder)
                    before = bed.measure(converted.values)
                    rows.setdefault("none", []).append((before, before, 0, 0))
                    for label, (rank, data) in CORRECTIONS.items():
                        values, size, seconds = converted.corrected(rank, data)
                        rows.setdefault(label, []).append((bed.measure(values), before, size, seconds))
            for label, measured in rows.items():
                ratios = [a / b for after, plain, _, _ in measured for a, b in zip(after["velocity"], plain["velocity"])]
                outputs = geometric_mean(a / b for after, plain, _, _ in measured
                                         for a, b in zip(after["output"], plain["output"]))
                print(f"| {target} | {conversion} | {label} | {100 * mean(m[2] for m in measured):.0f} % | "
                      f"{100 * mean(m[0]['weight'] for m in measured):.3f} % | {outputs:.3f} | "
                      f"{mean(v for m in measured for v in m[0]['velocity']):.5f} | "
                      f"{mean(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f}) | "
                      f"{mean(m[3] for m in measured):.2f} |", flush=True)


if __name__ == "__main__":
    main()
