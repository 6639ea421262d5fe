#!/usr/bin/env python3
"""The main job on a real-shaped file: write it, plan, convert to 8- and 4-bit formats, verify, compare, report.

    tools/demo/demo.py [--bin build/bin] [--out build/demo] [--blocks 2] [--keep]

Prints one table and leaves OUT/report.html, OUT/report.json and OUT/quality.html, which is `convert --report`'s page on a
file whose layers got the formats that a size budget chose. Needs Python's standard library only.
"""
import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import page  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SHAPE = ROOT / "tools" / "shapes" / "wan2.2-ti2v-5b.json"
# What to ask for, and what it is in words.
TARGETS = [
    ("float8_e4m3fn", "fp8, one scale a layer"),
    ("int8_row", "int8, one scale a row"),
    ("int8_tensor", "int8, one scale a layer"),
    ("int8_blockwise", "int8, one scale a 128 x 128 block"),
    ("float8_e5m2", "fp8 with a wider range, one scale a layer"),
    ("mxfp8", "fp8, one power of two every 32 weights"),
    ("nvfp4", "fp4, one fp8 scale every 16 weights"),
]
# Of the last file, kept layers included: between fp4 (7.0 here) and fp8 (9.8).
BITS = 8.5


class DemoError(Exception):
    """Something is not as it must be; the message says what."""


def high_water(pid):
    """Peak resident memory of a running process so far, in bytes; 0 once it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def run(command):
    """Runs a command; returns its output and what it cost.

    The kernel starts a child's peak memory (wait4) at what this program held when it started it. So that number counts
    only above our own peak; below it, the child's own high-water mark does, read every few milliseconds.
    """
    words = [str(word) for word in command]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        process = subprocess.Popen(words, stdout=out, stderr=err)
        seen, done = 0, 0
        while not done:
            time.sleep(0.004)
            seen = max(seen, high_water(process.pid))
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise DemoError(f"exit {process.returncode} from: {' '.join(words)}\n{err.read().strip()}")
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = usage.ru_maxrss * 1024 if usage.ru_maxrss > own else seen
        return out.read(), {"seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_bytes": peak}


def parse_json(text, what):
    try:
        return json.loads(text)
    except ValueError as error:
        raise DemoError(f"{what} is not JSON ({error}): {text[:200]!r}") from error


def field(value, name, kinds, what):
    """value[name], which must be there and of one of the kinds."""
    if not isinstance(value, dict) or name not in value:
        raise DemoError(f"{what} has no field '{name}'")
    if not isinstance(value[name], kinds) or isinstance(value[name], bool):
        raise DemoError(f"field '{name}' of {what} is {value[name]!r}")
    return value[name]


def comparison(text):
    """What the report needs of `compare --json`; an infinite ratio (equal bytes) is null in JSON."""
    what = "the output of compare"
    value = parse_json(text, what)
    layers = []
    for layer in field(value, "layers", list, what):
        layers.append({
            "name": field(layer, "name", str, what),
            "relative_error": float(field(layer, "relative_error", (int, float), what)),
            "sqnr_db": field(layer, "sqnr_db", (int, float, type(None)), what),
        })
    if not layers:
        raise DemoError(f"{what} lists no layer: nothing was quantized")
    finite = [layer["sqnr_db"] for layer in layers if layer["sqnr_db"] is not None]
    if not finite:
        raise DemoError(f"{what} shows no error at all: that cannot be a quantized file")
    return {
        "layers": sorted(layers, key=lambda layer: -layer["relative_error"]),
        "mean_relative_error": sum(layer["relative_error"] for layer in layers) / len(layers),
        "worst_sqnr_db": min(finite),
    }


def copy_time(source, target):
    """Time to copy the file and have it on the disk: what a conversion can be held against."""
    start = time.perf_counter()
    run(["cp", "--reflink=never", source, target])
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    seconds = time.perf_counter() - start
    os.unlink(target)
    return seconds


def machine():
    names = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": names[0] if names else "unknown", "cores": len(os.sched_getaffinity(0)), "memory_bytes": memory}


def human(count):
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.2f} {unit}"
        count /= 1000
    raise AssertionError


def convert_all(tool, source, out, keep):
    rows = []
    size_in = source.stat().st_size
    for target, summary in TARGETS:
        result = out / (target.replace(":", "_").replace("=", "_") + ".safetensors")
        text, cost = run([tool, "convert", source, "-o", result, "--to", target, "--force", "--quiet", "--json"])
        parse_json(text, f"the output of convert --to {target}")
        run([tool, "verify", result, "--quiet", "--any-runtime"])
        compared = comparison(run([tool, "compare", source, result, "--json"])[0])
        rows.append({"target": target, "summary": summary, "bytes": result.stat().st_size, **cost,
                     "mb_per_second": size_in / 1e6 / cost["seconds"], **compared})
        print(f"  {target}: {cost['seconds']:.2f} s, verified, compared", flush=True)
        if not keep:
            result.unlink()
    return rows


def convert_to_size(tool, source, out, keep):
    """One file of a size that was asked for, rounded with feedback, and the page about it."""
    result, page_path = out / "mixed.safetensors", out / "quality.html"
    print(f"\nThe same at {BITS} bits a weight: formats chosen layer by layer, rounding with error feedback", flush=True)
    text, cost = run([tool, "convert", source, "-o", result, "--target-bpw", BITS, "--effort", 2, "--report", page_path,
                      "--force", "--quiet", "--json"])
    outcome = field(field(parse_json(text, "the output of convert"), "results", list, "convert")[0], "bits_per_weight",
                    (int, float), "a result of convert")
    if outcome > BITS:
        raise DemoError(f"{outcome} bits a weight were stored, {BITS} were asked for")
    run([tool, "verify", result, "--quiet", "--any-runtime"])
    print(f"  {human(result.stat().st_size)}, {outcome:.2f} bits a weight, {cost['seconds']:.1f} s, verified", flush=True)
    if not keep:
        result.unlink()
    return page_path


def table(report):
    head = ["format", "size", "of input", "time", "read MB/s", "peak memory", "mean rel. error", "worst SQNR"]
    rows = [[row["target"], human(row["bytes"]), f"{row['bytes'] / report['input_bytes']:.1%}",
             f"{row['seconds']:.2f} s", f"{row['mb_per_second']:.0f}", human(row["peak_bytes"]),
             f"{row['mean_relative_error']:.4f}",
             f"{row['worst_sqnr_db']:.1f} dB"] for row in report["rows"]]
    rows.append(["(copy of the input)", human(report["input_bytes"]), "100.0%", f"{report['copy_seconds']:.2f} s",
                 f"{report['input_bytes'] / 1e6 / report['copy_seconds']:.0f}", "", "", ""])
    return head, rows


def print_table(head, rows):
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]
    for line in [head, ["-" * width for width in widths], *rows]:
        print("  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                        for i, (cell, width) in enumerate(zip(line, widths))))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=ROOT / "build" / "bin")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "demo")
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="keep the converted files")
    options = parser.parse_args()
    tool, synth = options.bin / "mezzotint", options.bin / "mezzotint-synth"
    options.out.mkdir(parents=True, exist_ok=True)
    source = options.out / "wan2.2-ti2v-5b-demo.safetensors"
    start = time.perf_counter()

    print(f"Writing a Wan2.2-5B-shaped file with {options.blocks} blocks, full width", flush=True)
    run([synth, "--shape", SHAPE, "-o", source, "--blocks", options.blocks, "--seed", 1, "--force"])
    size = source.stat().st_size
    free = shutil.disk_usage(options.out).free
    if free < 2 * size:
        raise DemoError(f"{options.out} has {human(free)} free; a copy beside one conversion needs {human(2 * size)}")

    print(f"{source}: {human(size)}\n\nThe plan:", flush=True)
    plan, _ = run([tool, "plan", source, "--to", TARGETS[0][0]])
    print(plan)
    print("Converting", flush=True)
    report = {"made": datetime.now(timezone.utc).isoformat(timespec="seconds"), "machine": machine(),
              "version": run([tool, "--version"])[0].strip(),
              "input": source.name, "input_bytes": size, "blocks": options.blocks,
              "plan": plan, "copy_seconds": copy_time(source, options.out / "copy.safetensors"),
              "rows": convert_all(tool, source, options.out, options.keep)}
    report["total_seconds"] = time.perf_counter() - start

    head, rows = table(report)
    print()
    print_table(head, rows)
    (options.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "report.html").write_text(page.render(report, head, rows))
    print(f"\n{options.out / 'report.html'}: the same to look at, and the layers with the largest errors"
          f" ({report['total_seconds']:.0f} s in all)")
    quality = convert_to_size(tool, source, options.out, options.keep)
    print(f"{quality}: what it did to every layer, and what would mend the worst")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DemoError as error:
        sys.exit(f"demo: {error}")
    except OSError as error:
        sys.exit(f"demo: {error}")
