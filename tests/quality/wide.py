"""A wide layer at effort 3: wide.py [--rows 3072] [--cols 14336] [--format float8_e4m3fn]

Wall time, CPU time and peak memory of the whole program by default (1 GiB: what does not fit lies in a scratch file) and
with 4 GiB, and whether both write the same bytes. About two minutes each.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from program import PROGRAM
from reference import weights
from safetensors.torch import save_file


def measured(source, output, target, memory, effort):
    command = [PROGRAM, "convert", source, "-o", output, "--to", target, "--preset", "none", "--include", r"blocks\..*",
               "-j", "1", "--effort", str(effort), "--max-memory", memory, "--quiet"]
    start = time.monotonic()
    process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"exit status {status}: {command}")
    return time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3072)
    parser.add_argument("--cols", type=int, default=14336)
    parser.add_argument("--format", default="float8_e4m3fn")
    parser.add_argument("--effort", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in.safetensors"
        save_file({"blocks.0.fc.weight": weights("lowrank", options.rows, options.cols).bfloat16()}, source)
        outputs = []
        for memory in ("1GiB", "4GiB"):
            output = Path(folder) / f"{memory}.safetensors"
            wall, cpu, peak = measured(source, output, options.format, memory, options.effort)
            outputs.append(output.read_bytes())
            print(f"{options.rows} x {options.cols}, {options.format}, effort {options.effort}, --max-memory {memory}: "
                  f"{wall:.1f} s, CPU {cpu:.1f} s, peak {peak:.0f} MiB", flush=True)
        if outputs[0] != outputs[1]:
            sys.exit("other bytes with more memory")
        print("the same bytes")


if __name__ == "__main__":
    main()
