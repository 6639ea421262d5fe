"""CPU seconds of a whole conversion, against convert_to_quant on the same file.

Both write float8_e4m3fn with one scale per tensor. CPU time is user + system
of the process and its children, so that other work on the machine matters
less than in wall time; both are printed.
"""

import json
import os
import platform
import statistics
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from peerlib import container

WIDTH, HIDDEN, BLOCKS = 3072, 14336, 9
LEAST_BYTES = 2_000_000_000
LEAST_RATIO = 20
RUNS = 3


def shapes():
    out = {}
    for block in range(BLOCKS):
        for projection in "qkvo":
            out[f"blocks.{block}.self_attn.{projection}"] = (WIDTH, WIDTH)
        out[f"blocks.{block}.ffn.0"] = (HIDDEN, WIDTH)
        out[f"blocks.{block}.ffn.2"] = (WIDTH, HIDDEN)
    return out


def large_file(path):
    """bf16 weights and biases with heavy tails, streamed; kept between runs."""
    header, offset = {}, 0
    for name, (rows, columns) in shapes().items():
        for key, shape in ((".weight", [rows, columns]), (".bias", [rows])):
            size = 2 * int(np.prod(shape))
            header[name + key] = {"dtype": "BF16", "shape": shape,
                                  "data_offsets": [offset, offset + size]}
            offset += size
    assert offset >= LEAST_BYTES
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    if path.exists() and path.stat().st_size == 8 + len(text) + offset:
        return path
    rng = np.random.default_rng(2026)
    pool = (rng.standard_t(5, 1 << 24) * 0.02).astype(np.float32)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for entry in header.values():
            left = int(np.prod(entry["shape"]))
            gain = np.float32(rng.uniform(0.5, 2))
            while left:
                start = int(rng.integers(0, len(pool) // 2))
                part = pool[start:start + left]
                f.write(container.bf16(part * gain).data)
                left -= len(part)
    return path


# A process starts out with the peak memory of the one that forks it: a small interpreter measures, not this large one.
LAUNCHER = """
import json, os, sys, time
begin = time.monotonic()
null = os.open(os.devnull, os.O_RDWR)
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ,
                        file_actions=[(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1)])
_, status, usage = os.wait4(child, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), time.monotonic() - begin,
                  usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
"""


def measure(command):
    """(wall seconds, CPU seconds, peak MB) of a command that must succeed."""
    result = subprocess.run([sys.executable, "-S", "-c", LAUNCHER, *map(str, command)],
                            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    code, wall, cpu, peak = json.loads(result.stdout)
    assert code == 0, f"{command}: exit {code}\n{result.stderr}"
    return wall, cpu, peak


def machine():
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = {line.split(":")[1].strip() for line in text.splitlines()
             if line.startswith("model name")}
    return f"{', '.join(names) or platform.processor()}, {os.cpu_count()} cores"


def test_cpu_seconds_against_ctq(mezzotint, ctq, scratch, capsys):
    source = large_file(scratch / "wan-like-bf16.safetensors")
    size = source.stat().st_size
    ours, theirs = scratch / "ours.safetensors", scratch / "theirs.safetensors"
    try:
        command = [mezzotint.path, "convert", source, "-o", ours, "--to", "float8_e4m3fn",
                   "--force"]
        measure(command)  # discarded: fills the page cache for both programs
        runs = [measure(command) for _ in range(RUNS)]
        peer = measure([*ctq, "-i", source, "-o", theirs, "--simple", "--comfy_quant",
                        "--manual_seed", "7", "--device", "cpu"])
        # The same work was done: the same layers, the same storage.
        names = set(shapes())
        assert quantized(ours) == quantized(theirs) == names
    finally:
        ours.unlink(missing_ok=True)
        theirs.unlink(missing_ok=True)
    wall, cpu, peak = (statistics.median(r[i] for r in runs) for i in range(3))
    doctor = subprocess.run([mezzotint.path, "doctor"], capture_output=True, text=True).stdout
    with capsys.disabled():
        print(f"\n{machine()}; {size / 1e9:.2f} GB bf16 -> float8_e4m3fn, warm cache")
        print(f"  {'program':<28}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}")
        print(f"  {f'mezzotint (median of {RUNS})':<28}{wall:8.2f}{cpu:8.2f}{peak:9.0f}")
        print(f"  {'ctq --simple (one run)':<28}{peer[0]:8.2f}{peer[1]:8.2f}{peer[2]:9.0f}")
        print(f"  ratio: wall {peer[0] / wall:.1f}x, CPU {peer[1] / cpu:.1f}x")
        print("  " + "\n  ".join(doctor.strip().splitlines()))
    assert peer[1] >= LEAST_RATIO * cpu


def quantized(path):
    """Names stored as F8_E4M3, from the header alone."""
    with open(path, "rb") as f:
        (length,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(length))
    return {n.removesuffix(".weight") for n, entry in header.items()
            if n != "__metadata__" and entry["dtype"] == "F8_E4M3"}


def test_measure_counts_cpu_time():
    """Negative control: a process that burns CPU is seen to do so."""
    idle = measure([sys.executable, "-c", "import time; time.sleep(0.5)"])
    busy = measure([sys.executable, "-c", "import time\nwhile time.process_time()<1: pass"])
    assert busy[1] >= 1 and idle[1] < 0.5
    with pytest.raises(AssertionError):
        measure([sys.executable, "-c", "raise SystemExit(1)"])
