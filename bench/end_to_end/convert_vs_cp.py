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
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def drop_caches():
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")


def timed(command, limit_bytes=None):
    """Wall seconds, CPU seconds and peak resident bytes of one command, from wait4."""
    def limit():
        if limit_bytes:
            resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=limit)
    error = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{' '.join(map(str, command))}: failed\n{error.decode()}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def describe(values):
    return f"median {statistics.median(values):7.2f} s  (min {min(values):.2f}, max {max(values):.2f})"


def machine():
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


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
        copy_command = ["sh", "-c", f"cp --reflink=never '{source}' '{copy}' && sync '{copy}'"]

        print(f"machine: {machine()}; MEZZOTINT_ISA={os.environ.get('MEZZOTINT_ISA', '(best)')}")
        walls, cpus, peaks = {"cp": [], "convert": []}, {"cp": [], "convert": []}, []
        for index in range(args.pairs + 1):
            for name, command in (("cp", copy_command), ("convert", convert)):
                (copy if name == "cp" else output).unlink(missing_ok=True)
                if args.cold:
                    drop_caches()
                wall, cpu, peak = timed(command)
                if index == 0:
                    continue
                walls[name].append(wall)
                cpus[name].append(cpu)
                if name == "convert":
                    peaks.append(peak)
        subprocess.run([args.bin / "mezzotint", "verify", "--quiet", output], check=True, stdout=subprocess.DEVNULL)
        compared = subprocess.run([args.bin / "mezzotint", "compare", source, output, "--top", "0", "--quiet"], check=True,
                                  capture_output=True, text=True).stdout.strip().splitlines()[-1]
        _, _, limited = timed(convert, args.limit_mb << 20)

        in_bytes, out_bytes = source.stat().st_size, output.stat().st_size
        ratio = statistics.median(walls["convert"]) / statistics.median(walls["cp"])
        print(f"input {in_bytes / 1e9:.2f} GB bf16, output {out_bytes / 1e9:.2f} GB {args.to}, "
              f"{'cold' if args.cold else 'warm'} cache, {args.pairs} pairs")
        for name in ("cp", "convert"):
            print(f"  {name:8} {describe(walls[name])}  CPU {statistics.median(cpus[name]):.2f} s")
        print(f"  convert / cp = {ratio:.2f}; {in_bytes / statistics.median(walls['convert']) / 1e6:.0f} MB/s of input")
        print(f"  peak memory {max(peaks) / 1e6:.1f} MB; {limited / 1e6:.1f} MB under ulimit -v {args.limit_mb << 10}")
        print(f"  {compared}")
        return 0 if ratio <= args.max_ratio and max(peaks) <= args.limit_mb << 20 else 1


if __name__ == "__main__":
    sys.exit(main())
