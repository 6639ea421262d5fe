"""SIGKILL of conversions that round with feedback: python3 kill_resume_effort.py PROGRAM SYNTH SHAPES.

Efforts 2 and 3, without calibration and with X'X of some layers, with one thread and two. Nearly all the time of such a
run is spent inside a layer, so that is where a kill falls. Standard library only.
"""
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

import checkpoints
from kill_resume import Runs, check, digest, rows

SHARES = (0.1, 0.35, 0.6, 0.85)  # of the output, where runs are killed
TOKENS = 1000


class EffortRuns(Runs):
    def __init__(self, program, source, folder, options):
        super().__init__(program, source, folder)
        self.options = options

    def command(self, *more, to="nvfp4"):
        return [self.program, "convert", self.source, "-o", self.out, "--to", to, "--quiet", *self.options, *more]


def record(source, path):
    """X'X = T (diag(d) + a a') of the layers of the first blocks, moments alone of the rest."""
    tensors = {}
    for name, (_, shape, _) in checkpoints.read(source)[0].items():
        if not name.endswith(".weight") or len(shape) != 2 or "blocks." not in name:
            continue
        layer, cols = name[:-len(".weight")], shape[1]
        a = [0.25 + ((7 * j + len(tensors)) % 13) / 4 for j in range(cols)]
        moments = [0.5 + x * x for x in a]
        amax = [(TOKENS * x) ** 0.5 for x in moments]
        tensors[layer + ".amax"] = ("F32", [], checkpoints.f32(max(amax)))
        for part, values in (("channel_amax", amax), ("channel_mean", a), ("second_moment", moments)):
            tensors[f"{layer}.{part}"] = ("F32", [cols], checkpoints.f32(*values))
        tensors[layer + ".histogram"] = ("I64", [514], struct.pack("<514q", *[TOKENS * cols] + [0] * 513))
        tensors[layer + ".tokens"] = ("I64", [], struct.pack("<q", TOKENS))
        if "blocks.2." not in name:
            triangle = [a[i] * a[j] + (0.5 if i == j else 0) for i in range(cols) for j in range(i + 1)]
            tensors[layer + ".gram"] = ("F32", [len(triangle)], checkpoints.f32(*triangle))
    return checkpoints.write(path, tensors, {"mezzotint_calibration": "1"})


def differences(expected, found):
    """Names of the tensors whose bytes differ."""
    wanted, got = checkpoints.read(expected)[0], checkpoints.read(found)[0]
    return [name for name in sorted(wanted.keys() | got.keys()) if wanted.get(name) != got.get(name)] or ["the header"]


def kill_and_resume(runs, what, expected, threads):
    size = runs.size
    hits = resumed = 0
    for number, share in enumerate(SHARES):
        runs.clean()
        offset = int(size * share)
        if not runs.kill_at(offset, "--threads", str(threads)):
            continue
        hits += 1
        check(not runs.out.exists(), f"{what}, killed at {offset}: the final name exists")
        check(not list(runs.out.parent.glob("*.scratch")), f"{what}: a scratch file was left behind")
        finished = rows(runs.journal)
        resumed += finished > 0
        if number % 2:  # killed again while it resumes, a little later
            runs.kill_at(min(size, offset + size // 10), "--resume", "--threads", str(threads))
            if not runs.out.exists():
                check(rows(runs.journal) >= finished, f"{what}: a resumed run lost rows")
        if not runs.out.exists():
            runs.run("--resume", "--threads", str(3 - threads))
        if digest(runs.out) != expected:
            check(False, f"{what}, killed at {offset}: the resumed file differs in {differences(runs.uninterrupted, runs.out)}")
        check(not runs.partial.exists() and not runs.journal.exists(), f"{what}: files were left behind")
    print(f"{what}, {threads} threads: {hits} kills, {resumed} with rows to resume; the same bytes")
    return hits, resumed


def main(program, synth, shapes, folder):
    source = folder / "in.safetensors"
    subprocess.run([synth, "--shape", pathlib.Path(shapes) / "wan2.2-ti2v-5b.json", "--blocks", "3", "--scale", "0.125",
                    "-o", source], check=True, stdout=subprocess.DEVNULL)
    recording = record(source, folder / "calibration.safetensors")
    outputs, hits, resumed, wanted = set(), 0, 0, 0
    for effort in ("2", "3"):
        for data in ([], ["--calibration", str(recording)]):
            runs = EffortRuns(program, source, folder, ["--effort", effort, *data])
            runs.clean()
            runs.run("--threads", "1")
            expected, runs.size = digest(runs.out), runs.out.stat().st_size
            runs.uninterrupted = shutil.copy(runs.out, folder / "uninterrupted.safetensors")
            outputs.add(expected)
            runs.clean()
            runs.run("--threads", "2")
            what = f"effort {effort}{', data' if data else ''}"
            check(digest(runs.out) == expected, f"{what}: other bytes with two threads")
            for threads in (1, 2):
                more = kill_and_resume(runs, what, expected, threads)
                hits, resumed, wanted = hits + more[0], resumed + more[1], wanted + len(SHARES)
    check(len(outputs) == 4, "efforts and data that change nothing prove nothing")
    check(hits >= wanted - 4, f"only {hits} of {wanted} runs could be killed in time")
    check(resumed >= wanted // 2, f"only {resumed} runs had rows to resume")


if __name__ == "__main__":
    work = pathlib.Path(tempfile.mkdtemp(prefix="mezzotint-kill-"))
    try:
        main(*sys.argv[1:4], work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
