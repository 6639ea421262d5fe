#!/usr/bin/env python3
"""Our matrix products and codecs beside torch's and comfy-kitchen's eager backend, on one core.

    bench/peers/run.sh [--all] [--only products|codecs] [--rounds 3] [--seconds 0.15] [--match TEXT] [--cpu-time]

Both sides multiply and quantize the same bytes, which bench_gemm and bench_formats write. They take turns --rounds times;
a figure is the median of the rounds, a round's product the median and its codec the best of --seconds of runs. A wrong
answer is not timed, and the exit code is 1. "of limit" compares with what the same run of bench_gemm measured: operations
from registers for the instructions a product uses, or reading the stored weights from memory, whichever takes longer.
--match takes the rows of ours that contain TEXT; --cpu-time is the thread's time, for machines that others use too.
"""
import argparse
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))  # torch reads them

import torch  # noqa: E402

import codec_peers  # noqa: E402
import products  # noqa: E402
from common import Clock, Complaints, Series, Wrong  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SHAPES = {"square": (3072, 3072), "Wan 5B up": (14336, 3072), "Wan 5B down": (3072, 14336), "Wan 14B": (5120, 5120),
          "Wan 14B up": (13824, 5120), "Wan 14B down": (5120, 13824), "Flux up": (12288, 3072),
          "Flux down": (3072, 12288), "T5 up": (10240, 4096), "T5 down": (4096, 10240)}
QUICK = {"square": (1, 16, 256, 1024), "Wan 5B up": (1, 1024), "Flux up": (1, 1024)}


def machine():
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    version = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True).stdout
    return "\n".join([
        f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}; "
        "one core, one thread each",
        f"mezzotint {version.strip() or 'of no commit'}; torch {torch.__version__} "
        f"({torch.backends.cpu.get_cpu_capability()}, oneDNN {'on' if torch.backends.mkldnn.is_available() else 'off'}), "
        f"comfy-kitchen {importlib.metadata.version('comfy-kitchen')} eager, Python {platform.python_version()}"])


class Bench:
    """bench_gemm, waiting for filters."""

    def __init__(self, program, options):
        command = [program, "--all", "--json", "--filter", "-", "--seconds", str(options.seconds)]
        command += ["--cpu-time"] if options.cpu_time else []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.limits = json.loads(self.process.stdout.readline())

    def rows(self, text):
        print(text, file=self.process.stdin, flush=True)
        rows = []
        while line := self.process.stdout.readline().strip():
            rows.append(json.loads(line))
        if self.process.poll() is not None:
            sys.exit("bench_gemm ended early")
        return rows

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def our_products(bench, model, m, n, k, wanted):
    """{"int8 row forward": (ms, ms at the limit, which, answer)}; wrong rows are None."""
    rows, found = [], {}
    for kind in sorted({re.sub(r" (forward|transposed).*", "", name) for name in wanted}):
        rows += bench.rows(f"{kind} forward {model}, M {m} N {n} K {k}, 1 thread")
        if any(name.startswith(kind + " transposed") for name in wanted):
            rows += bench.rows(f"{kind} transposed {model}, M {m} N {n} K {k}, 1 thread")
    for row in rows:
        name = row["row"][:row["row"].index(f" {model},")]
        found[name] = None if "wrong" in row else (row["median_ms"], row["limit_ms"], row["limit"], row["answer"])
    base = found.get("int8 row forward")
    if base and any(name.endswith("+ quantize") for name in wanted):
        for row in bench.rows(f"quantize row, M {m} K {k}, 1 thread"):
            name = "int8 row forward + quantize"
            found[name] = None if "wrong" in row else (base[0] + row["median_ms"], *base[1:])
    return found


def compare_shape(bench, inputs, model, m, options, weights, complaints):
    n, k = SHAPES[model]
    pairs = [pair for pair in products.PAIRS if options.match in pair[0]]
    peers, answers = {}, {}
    for name in dict.fromkeys(["torch bf16 linear", "torch fp32 linear"] + [theirs for _, theirs in pairs]):
        if name not in weights:
            weights[name] = products.Product.make_weights(name, inputs, n, k)
        product = products.Product(name, inputs, weights[name], m, n, k)
        try:
            answers[name] = product.check()
            peers[name] = product
        except Wrong as why:
            complaints.add(f"{name}, M {m} N {n} K {k}: {why}")
    clock, series, ours = Clock(options.seconds, options.cpu_time), Series(), {}
    for _ in range(options.rounds):
        for name, figures in our_products(bench, model, m, n, k, [pair[0] for pair in pairs]).items():
            ours[name] = figures
            if figures:
                series.add(name, figures[0])
        for name, product in peers.items():
            series.add(name, 1e3 * statistics.median(clock.times(product.run)))

    operations = 2.0 * m * n * k
    dense = [series.median(name) for name in ("torch bf16 linear", "torch fp32 linear") if name in peers]
    print(f"\n{model}: M {m}, N {n}, K {k}; torch " + ", ".join(
        f"{name.split()[1]} linear {series.median(name):.3f} ms" for name in peers if name in (
            "torch bf16 linear", "torch fp32 linear")))
    print(f"  {'ours':<35} {'ms':>8} {'GOP/s':>7} {'of limit':>13}  {'answer':<28} "
          f"{'theirs':<34} {'ms':>8} {'GOP/s':>7} {'of limit':>13}  {'answer':<15} {'ratio':>6} {'x dense':>8}")
    for name, theirs in pairs:
        if name not in ours:
            continue
        if ours[name] is None:
            complaints.add(f"{name}, M {m} N {n} K {k} (ours)")
            continue
        ms, (_, limit_ms, limit, answer) = series.median(name), ours[name]
        line = (f"  {name:<35} {ms:8.3f} {operations / ms * 1e-6:7.0f} {100 * limit_ms / ms:4.0f}% of {limit:<5} "
                f" {answer:<28} ")
        if theirs in peers:
            other = series.median(theirs)
            share, what = their_limit(bench.limits, products.PEERS[theirs], m, n, k, other)
            line += (f"{theirs:<34} {other:8.3f} {operations / other * 1e-6:7.0f} {share:4.0f}% of {what:<5} "
                     f" {answers[theirs]:<15} {other / ms:5.2f}x {min(dense, default=0) / ms:7.2f}x")
        print(line, flush=True)


def their_limit(limits, peer, m, n, k, ms):
    peak = limits[peer.limit + "_GOP/s"] or limits["f32_GOP/s"]
    by_peak = 2e-6 * m * n * k / peak
    by_read = n * k * peer.bits / 8 / limits["read_GB/s"] * 1e-6
    return 100 * max(by_peak, by_read) / ms, "peak" if by_peak > by_read else "read"


def compare_products(options, folder, complaints):
    program = options.bin / "bench_gemm"
    shapes = {name: (1, 16, 256, 1024) for name in SHAPES} if options.all else QUICK
    if options.tiny:
        shapes = {"square": (1, 16)}
    count = max(m * max(SHAPES[name]) for name, sizes in shapes.items() for m in sizes)
    file = folder / "products"
    subprocess.run([program, "--inputs", file, str(count)], check=True)
    inputs = products.Inputs(file, count)
    file.unlink()
    bench = Bench(program, options)
    limits = bench.limits
    print(f"\nProducts. Level {limits['level']}, clock {limits['clock_GHz']:.2f} GHz; from registers int8 "
          f"{limits['int8_GOP/s']:.0f} GOP/s, bf16 {limits['bf16_GOP/s']:.0f}, f32 {limits['f32_GOP/s']:.0f}; read "
          f"{limits['read_GB/s']:.1f} GB/s. ratio: their time / ours; x dense: torch's best of bf16 and fp32 linear / "
          "ours.", flush=True)
    for model, sizes in shapes.items():
        weights = {}
        for m in sizes:
            compare_shape(bench, inputs, model, m, options, weights, complaints)
    bench.close()


def our_codec(options, folder, name):
    """{"quantize_effort0": {...}} of bench_formats, and its copy rate."""
    out = folder / "codec.json"
    command = [options.bin / "bench_formats", f"--benchmark_filter=^{name}/(quantize_effort[01]|dequantize_bf16)/",
               f"--benchmark_min_time={options.seconds}", f"--benchmark_out={out}", "--benchmark_out_format=json"]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    report = json.loads(out.read_text(encoding="utf-8"))
    return {row["name"].split("/")[1]: row for row in report["benchmarks"]}, float(report["context"]["copy_GB/s"])


def compare_codec(name, w, options, folder, complaints):
    clock, series, copies = Clock(options.seconds, True), Series(), []
    codec = label = None
    for _ in range(options.rounds):
        rows, copy = our_codec(options, folder, name)
        if not rows or any(row.get("error_occurred") for row in rows.values()):
            return complaints.add(f"{name} (ours)")
        copies.append(copy)
        size = {what: row["MB"] * 1e6 for what, row in rows.items()}
        label = {what: row["label"] for what, row in rows.items()}
        for what, row in rows.items():
            series.add(what, row["best_GB/s"])
        if codec is None:
            try:
                codec = codec_peers.Codec(name, w, float(re.search(r"error ([\d.]+)", label["quantize_effort0"])[1]))
            except Wrong as why:
                complaints.add(f"{name} (kitchen): {why}")
                codec = False
        if codec:
            series.add("q", size["quantize_effort0"] * 1e-9 / min(clock.times(codec.quantize, 1)))
            series.add("d", size["dequantize_bf16"] * 1e-9 / min(clock.times(codec.dequantize, 1)))
    copy = statistics.median(copies)
    for what, theirs in (("quantize_effort0", "q"), ("quantize_effort1", "q"), ("dequantize_bf16", "d")):
        rate, other = series.median(what), series.median(theirs)
        line = f"  {name:<16} {what:<17} {rate:7.2f} {100 * rate / copy:5.0f}%  {label[what]:<32}"
        if other:
            line += f" {other:8.3f} {100 * other / copy:5.1f}%  error {codec.error:.5f} {rate / other:7.1f}x"
        print(line, flush=True)
    return None


def compare_codecs(options, folder, complaints):
    file = folder / "weight"
    subprocess.run([options.bin / "bench_formats", "--inputs", file], check=True)
    w = codec_peers.load_weight(file)
    file.unlink()
    print("\nCodecs, 4096 x 8192 bf16 in 64 MB, bytes in + out (stored bytes included). of copy: memcpy of 64 MB, in + out."
          "\nratio: our rate / theirs; kitchen's quantizer stands beside both efforts. Time of the thread.")
    print(f"  {'':<16} {'':<17} {'GB/s':>7} {'copy':>6}  {'':<32} {'kitchen':>8} {'copy':>6}  {'':<13} {'ratio':>8}", flush=True)
    names = [name for name in codec_peers.CODECS if options.match in name]
    for name in names[:2] if options.tiny else names:
        compare_codec(name, w, options, folder, complaints)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every shape with every batch")
    parser.add_argument("--tiny", action="store_true", help="two batches, two codecs: whether it runs at all")
    parser.add_argument("--only", choices=("products", "codecs"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.15)
    parser.add_argument("--match", default="", metavar="TEXT")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--bin", type=Path, default=ROOT / "build/bin", metavar="DIR")
    options = parser.parse_args()
    options.bin = options.bin.resolve()

    start = time.monotonic()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    print(machine(), flush=True)
    complaints = Complaints()
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "codecs":
            compare_products(options, Path(folder), complaints)
        if options.only != "products":
            compare_codecs(options, Path(folder), complaints)
    print(f"\n{time.monotonic() - start:.0f} seconds" + (f"; {complaints.count} wrong" if complaints.count else ""))
    return 1 if complaints.count else 0


if __name__ == "__main__":
    sys.exit(main())
