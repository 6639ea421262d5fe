"""Wall, CPU and memory of programs, alternating, for the benchmarks in this folder."""
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path


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


class Runs:
    """Times of commands that take turns."""

    def __init__(self):
        self.walls, self.cpus, self.peaks = {}, {}, {}

    def add(self, name, wall, cpu, peak):
        for values, value in ((self.walls, wall), (self.cpus, cpu), (self.peaks, peak)):
            values.setdefault(name, []).append(value)

    def wall(self, name):
        return statistics.median(self.walls[name])

    def describe(self, name):
        walls = self.walls[name]
        return (f"median {statistics.median(walls):7.2f} s  (min {min(walls):.2f}, max {max(walls):.2f})  "
                f"CPU {statistics.median(self.cpus[name]):.2f} s")


def alternate(commands, outputs, pairs, cold=False):
    """Every command once without counting, then `pairs` times, in turns; each one's output is removed before it."""
    runs = Runs()
    for index in range(pairs + 1):
        for name, command in commands.items():
            outputs[name].unlink(missing_ok=True)
            if cold:
                drop_caches()
            measured = timed(command)
            if index > 0:
                runs.add(name, *measured)
    return runs


def copy_command(source, copy):
    return ["sh", "-c", f"cp --reflink=never '{source}' '{copy}' && sync '{copy}'"]


def machine():
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    # Set from outside, it takes the place of the kernels that the program would choose (cli/blas_kernels.cpp).
    blas = os.environ.get("OPENBLAS_CORETYPE")
    return (f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}" +
            (f", OPENBLAS_CORETYPE={blas}" if blas else ""))
