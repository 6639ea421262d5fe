#!/usr/bin/env python3
"""Holds `mezzotint merge` of a LoRA over every quantized layer against a copy of the same file.

`cp --reflink=never BASE COPY && sync COPY` and `merge --rounding nearest` take turns; one discarded run of each, then N pairs.
Merging with feedback is timed on its own. Before any figure the outputs are verified, and what is left of the LoRA in them is
measured (`compare --lora`): nearly all of it with feedback, and none of another LoRA.

    bench/end_to_end/merge_vs_cp.py --size 2GB --pairs 5 [--format int8_row] [--rank 32] [--cold] [--feedback-runs 1] [--dir DIR]

Exit code 1 where nearest takes more than --max-ratio of the copy's time or --limit-mb of memory.
"""
import argparse
import array
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import timing

ROOT = Path(__file__).resolve().parents[2]
DELTA = 0.05  # of weights of 1 / sqrt(K): large enough for nearest rounding to keep most of it
SIZES = {"k": 1e3, "m": 1e6, "g": 1e9}


def header_of(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length))


class Noise:
    """Normal values as bf16, read from a table at random places."""

    def __init__(self, seed, count=1 << 20):
        self.rng = random.Random(seed)
        self.values = [self.rng.gauss(0, 1) for _ in range(count)]

    def table(self, deviation):
        wide = array.array("f", (v * deviation for v in self.values)).tobytes()
        table = bytearray(len(wide) // 2)
        table[0::2], table[1::2] = wide[2::4], wide[3::4]  # the upper half of a float32
        return bytes(table)

    def write(self, file, table, count):
        while count > 0:
            step = min(count, len(table) // 4)
            at = 2 * self.rng.randrange(len(table) // 2 - step)
            file.write(table[at:at + 2 * step])
            count -= step


def write_lora(path, base, rank, seed):
    """A LoRA for every quantized layer of `base`, with deltas of that size."""
    header = header_of(base)
    layers = [name.removesuffix(".comfy_quant") for name in header if name.endswith(".comfy_quant")]
    entries, order, offset = {}, [], 0
    for layer in layers:
        rows, columns = header[layer + ".weight"]["shape"]
        for part, shape in (("up", [rows, rank]), ("down", [rank, columns])):
            size = 2 * shape[0] * shape[1]
            entries[f"diffusion_model.{layer}.lora_{part}.weight"] = {
                "dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
            order.append((part, shape[0] * shape[1]))
            offset += size
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    noise = Noise(seed)
    up, down = noise.table(DELTA / rank ** 0.5), noise.table(3072 ** -0.5)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for part, count in order:
            noise.write(file, up if part == "up" else down, count)
    return len(layers)


def survival(mezzotint, base, merged, lora):
    report = subprocess.run([mezzotint, "compare", base, merged, "--lora", lora, "--json", "--quiet"], check=True,
                            capture_output=True, text=True).stdout
    return json.loads(report)["adapters"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=ROOT / "build/bin")
    parser.add_argument("--dir", type=Path, help="where the files go (default: a temporary folder)")
    parser.add_argument("--size", default="2GB", help="of the quantized file, about")
    parser.add_argument("--format", default="int8_row", help="8 bits a weight")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--feedback-runs", type=int, default=1)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--limit-mb", type=int, default=600)
    parser.add_argument("--max-ratio", type=float, default=2.0)
    args = parser.parse_args()
    mezzotint = args.bin / "mezzotint"
    size = float(args.size.lower().rstrip("b")[:-1]) * SIZES[args.size.lower().rstrip("b")[-1]]

    with tempfile.TemporaryDirectory(dir=args.dir) as scratch:
        def path(name):
            return Path(scratch) / f"{name}.safetensors"
        subprocess.run([args.bin / "mezzotint-synth", "--shape", ROOT / "tools/shapes/wan2.2-ti2v-5b.json", "--size",
                        str(int(2 * size)), "--seed", "1", "-o", path("float")], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([mezzotint, "convert", path("float"), "-o", path("base"), "--to", args.format, "--effort", "0",
                        "--quiet"], check=True, stdout=subprocess.DEVNULL)
        path("float").unlink()
        layers = write_lora(path("lora"), path("base"), args.rank, 2)
        write_lora(path("other"), path("base"), args.rank, 3)
        os.sync()

        def merge(rounding):
            return [mezzotint, "merge", path("base"), "-o", path(rounding), "--lora", path("lora"), "--rounding", rounding,
                    "--force", "--quiet"]
        commands = {"cp": timing.copy_command(path("base"), path("copy")), "nearest": merge("nearest")}
        print(f"machine: {timing.machine()}; MEZZOTINT_ISA={os.environ.get('MEZZOTINT_ISA', '(best)')}")
        runs = timing.alternate(commands, {"cp": path("copy"), "nearest": path("nearest")}, args.pairs, args.cold)
        for _ in range(args.feedback_runs):
            path("feedback").unlink(missing_ok=True)
            runs.add("feedback", *timing.timed(merge("feedback")))

        answers = []
        for rounding in ("nearest", "feedback")[:1 + (args.feedback_runs > 0)]:
            subprocess.run([mezzotint, "verify", "--quiet", path(rounding)], check=True, stdout=subprocess.DEVNULL)
            left = survival(mezzotint, path("base"), path(rounding), path("lora"))
            answers.append(f"  {rounding:8} gain {left['gain']:.3f}, residual {left['residual']:.2f}, "
                           f"{left['measured']} layers measured")
            if left["measured"] != layers or abs(left["gain"] - 1) > (0.05 if rounding == "feedback" else 0.5):
                sys.exit("the LoRA is not in the output:\n" + "\n".join(answers))
            if abs(survival(mezzotint, path("base"), path(rounding), path("other"))["gain"]) > 0.05:
                sys.exit("another LoRA would be found, too")

        ratio, peak = runs.wall("nearest") / runs.wall("cp"), max(runs.peaks["nearest"])
        within = ratio <= args.max_ratio and peak <= args.limit_mb << 20
        print(f"base {path('base').stat().st_size / 1e9:.2f} GB {args.format}, LoRA of rank {args.rank} over {layers} layers "
              f"({path('lora').stat().st_size / 1e6:.0f} MB), {'cold' if args.cold else 'warm'} cache, {args.pairs} pairs")
        for name in runs.walls:
            print(f"  {name:8} {runs.describe(name)}  peak memory {max(runs.peaks[name]) / 1e6:.0f} MB")
        print("\n".join(answers))
        print(f"  nearest / cp = {ratio:.2f} (at most {args.max_ratio}), {peak / 1e6:.0f} MB (at most {args.limit_mb} MiB): "
              f"{'pass' if within else 'FAIL'}")
        if args.feedback_runs > 0:
            print(f"  feedback / cp = {runs.wall('feedback') / runs.wall('cp'):.1f}")
        return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
