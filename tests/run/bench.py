#!/usr/bin/env python3
"""mezzotint-bench on a tiny model: bench.py PROGRAM. Reads the JSON and tries wrong arguments."""
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAM = sys.argv[1]
# Errors of outputs beside float32 that weights and activations of normal values can have; those of 8 bits, and others.
LIMIT = 0.09
LIMITS = {"asym_w4a8_int8": 0.12, "nvfp4": 0.2, "convrot_w4a4": 0.28}


def run(*arguments):
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=False)


def check(condition, *what):
    if not condition:
        sys.exit(f"bench.py: {what}")


def check_row(row, table):
    where = (table["what"], row)
    check("problem" not in row, *where)
    check(row["best_ms"] > 0 and row["median_ms"] >= row["best_ms"] and row["turns"] >= 2, *where)
    check(row["speedup_over_bf16"] > 0 and row["weight_bytes"] > 0 and row["memory_ratio"] > 0, *where)
    if row["path"] == "torch":
        check(row["error"] < 0.02, *where)
        return
    check(row["path"] and row["dequantized"] is False, *where)
    limit = LIMITS.get(row["name"], LIMIT)
    check(row["weight_error"] < limit, *where)
    # A block adds up the errors of its layers.
    check(1e-3 < row["error"] < limit * (2 if table["what"] == "one block" else 1), *where)
    check(row["memory_ratio"] > (3 if row["name"] in LIMITS else 1.9), *where)


def check_spoiled(table):
    """Figures of a scale that is off by a quarter must not pass."""
    for row in table["rows"]:
        try:
            check_row({**row, "error": math.hypot(row["error"], 0.25)}, table)
        except SystemExit:
            continue
        sys.exit(f"bench.py: a spoiled error passes: {row}")


def check_results(results):
    machine = results["machine"]
    check(machine["threads"] == 1 and machine["isa"] and machine["torch"] and machine["device"] == "cpu", machine)
    check(results["correct"] is True, "an answer is wrong")
    check([t["what"] for t in results["layers"]] == ["first layer, small batch", "attention, long sequence",
                                                     "MLP down, long sequence", "attention, medium sequence"], "cases")
    check([(t["m"], t["n"], t["k"]) for t in results["layers"]] == [(16, 256, 256), (40, 256, 256), (40, 256, 512),
                                                                    (10, 256, 256)], "sizes")
    check(len(results["blocks"]) == 1 and results["blocks"][0]["tokens"] == 24, "block")
    for table in results["layers"] + results["blocks"]:
        names = [row["name"] for row in table["rows"]]
        check(names[0] == "bf16" and len(names) == len(set(names)) > 10, names)
        for row in table["rows"]:
            check_row(row, table)
    for table in results["layers"]:
        check_spoiled(table)
    step = results["steps"][0]
    bf16 = results["blocks"][0]["rows"][0]
    check(step["layers"] == 2 and step["outside_blocks_ms"] > 0, step)
    check(abs(step["rows"][0]["ms"] - 2 * bf16["median_ms"] - step["outside_blocks_ms"]) < 1e-6 * step["rows"][0]["ms"],
          step, bf16)


def main():
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.json"
        sizes = ["wan", "--model", "256x512", "--tokens", "40", "--block-tokens", "24", "--seconds", "0", "--rounds", "2"]
        tiny = [*sizes, "--threads", "1"]
        done = run(*tiny, "--json", str(file))
        check(done.returncode == 0, done.stdout, done.stderr)
        results = json.loads(file.read_text(encoding="utf-8"))
        check_results(results)
        for row in results["layers"][0]["rows"]:
            check(row["name"] in done.stdout, row["name"], done.stdout)

        done = run(*tiny, "--m", "1,3", "--only", "layers", "--formats", "int8_blockwise:block_size=64,nvfp4", "--cpu-time",
                   "--json", str(file))
        check(done.returncode == 0, done.stdout, done.stderr)
        results = json.loads(file.read_text(encoding="utf-8"))
        check("blocks" not in results and results["clock"] == "thread", results)
        check([(t["m"], t["n"], t["k"]) for t in results["layers"]] ==
              [(m, *shape) for m in (1, 3) for shape in ((256, 256), (512, 256), (256, 512))], results)
        check([r["name"] for r in results["layers"][0]["rows"]][-2:] == ["int8_blockwise:block_size=64", "nvfp4"], results)

        for wrong, says in ((["--model", "256"], "no such model"), (["--formats", "int9"], "int9"),
                            (["--cpu-time", "--threads", "2"], "--threads 1"),
                            (["--json", str(Path(folder) / "none" / "x")], "cannot be written")):
            done = run(*sizes, *wrong)
            check(done.returncode == 1 and says in done.stderr and not done.stdout, wrong, done.stdout, done.stderr)
        if run(*tiny, "--device", "cuda", "--only", "layers").returncode != 0:  # no GPU
            done = run(*tiny, "--device", "cuda")
            check(done.returncode == 1 and "finds no NVIDIA GPU" in done.stderr, done.stderr)
        check(run("wan", "--device", "tpu").returncode != 0, "another device")
        check(run().returncode != 0, "no subcommand")


if __name__ == "__main__":
    main()
