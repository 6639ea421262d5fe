#!/usr/bin/env python3
"""Holds `mezzotint convert` against `cp --reflink=never IN COPY && sync COPY` of the same file.

One discarded run of each, then N alternating pairs; prints medians, ranges and the ratio of the medians, peak memory of
the conversion (also under an address-space limit), and checks the output with `mezzotint verify` before any figure.

    bench/end_to_end/convert_vs_cp.py --size 2GB --pairs 5 [--cold] [--to float8_e4m3fn] [--effort 1] [--limit-mb 400] [--dir DIR]

--cold drops the page cache before every run (root). Exit code 1 where the conversion is slower or needs more memory than
the limits given by --max-ratio and --limit-mb.
"""
import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import timing

ROOT = Path(__file__).resolve().parents[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=ROOT / "build/bin")
    parser.add_argument("--dir", type=Path, help="where the files go (default: a temporary folder)")
    parser.add_argument("--size", default="2GB")
    parser.add_argument("--to", default="float8_e4m3fn")
    parser.add_argument("--effort", default="1", help="as in mezzotint convert")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--limit-mb", type=int, default=400, help="allowed peak memory; also set as RLIMIT_AS once")
    parser.add_argument("--max-ratio", type=float, default=1.0)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=args.dir) as scratch:
        source, copy, output = (Path(scratch) / name for name in ("in.safetensors", "copy.safetensors", "out.safetensors"))
        subprocess.run([args.bin / "mezzotint-synth", "--shape", ROOT / "tools/shapes/wan2.2-ti2v-5b.json", "--size",
                        args.size, "--seed", "1", "-o", source], check=True, stdout=subprocess.DEVNULL)
        os.sync()
        convert = [args.bin / "mezzotint", "convert", source, "-o", output, "--to", args.to, "--effort", args.effort, "--force",
                   "--quiet"]

        print(f"machine: {timing.machine()}; MEZZOTINT_ISA={os.environ.get('MEZZOTINT_ISA', '(best)')}")
        runs = timing.alternate({"cp": timing.copy_command(source, copy), "convert": convert},
                                {"cp": copy, "convert": output}, args.pairs, args.cold)
        subprocess.run([args.bin / "mezzotint", "verify", "--quiet", output], check=True, stdout=subprocess.DEVNULL)
        compared = subprocess.run([args.bin / "mezzotint", "compare", source, output, "--top", "0", "--quiet"], check=True,
                                  capture_output=True, text=True).stdout.strip().splitlines()[-1]
        _, _, limited = timing.timed(convert, args.limit_mb << 20)

        in_bytes, out_bytes = source.stat().st_size, output.stat().st_size
        wall, peaks = runs.wall("convert"), runs.peaks["convert"]
        ratio = wall / runs.wall("cp")
        print(f"input {in_bytes / 1e9:.2f} GB bf16, output {out_bytes / 1e9:.2f} GB {args.to}, "
              f"{'cold' if args.cold else 'warm'} cache, {args.pairs} pairs")
        for name in ("cp", "convert"):
            print(f"  {name:8} {runs.describe(name)}")
        print(f"  convert / cp = {ratio:.2f}; {in_bytes / wall / 1e6:.0f} MB/s of input")
        print(f"  peak memory {max(peaks) / 1e6:.1f} MB; {limited / 1e6:.1f} MB under ulimit -v {args.limit_mb << 10}")
        print(f"  {compared}")
        return 0 if ratio <= args.max_ratio and max(peaks) <= args.limit_mb << 20 else 1


if __name__ == "__main__":
    sys.exit(main())
