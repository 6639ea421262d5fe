"""SIGKILL of a conversion at ten spread output offsets: python3 kill_resume.py PROGRAM SYNTH SHAPES.

Nothing may lie under the final name after a kill, and --resume must end with the bytes of an undisturbed run. Standard
library only.
"""
import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

KILLS = 10


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else \
            hashlib.sha256(file.read()).hexdigest()


def check(right, what):
    if not right:
        sys.exit(f"kill_resume: {what}")


def allocated(path):
    """Bytes that a file occupies; 0 while there is none."""
    try:
        return os.stat(path).st_blocks * 512
    except FileNotFoundError:
        return 0


def rows(journal):
    try:
        return sum(line.startswith("row ") for line in journal.read_text().splitlines())
    except FileNotFoundError:
        return 0


class Runs:
    def __init__(self, program, source, folder):
        self.program, self.source = program, source
        self.out = folder / "out.safetensors"
        self.partial = folder / "out.safetensors.partial"
        self.journal = folder / "out.safetensors.partial.journal"

    def command(self, *more, to="float8_e4m3fn"):
        # One thread and stochastic rounding: slow enough to be hit where we aim.
        return [self.program, "convert", self.source, "-o", self.out, "--to", to, "--threads", "1", "--quiet",
                "--rounding", "stochastic", "--seed", "7", *more]

    def run(self, *more, code=0, **options):
        result = subprocess.run(list(map(str, self.command(*more, **options))), capture_output=True, text=True,
                                timeout=300)
        check(result.returncode == code, f"{more}: exit {result.returncode}, not {code}: {result.stderr}")
        return result

    def kill_at(self, offset, *more):
        """Kills the run once the .partial file holds `offset` bytes; False where it was done before."""
        process = subprocess.Popen(list(map(str, self.command(*more))), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        while process.poll() is None:
            if allocated(self.partial) >= offset and self.journal.exists():
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.0005)
        return process.wait() == -signal.SIGKILL

    def clean(self):
        for path in (self.out, self.partial, self.journal):
            path.unlink(missing_ok=True)


def main(program, synth, shapes, folder):
    source = folder / "in.safetensors"
    subprocess.run([synth, "--shape", pathlib.Path(shapes) / "wan2.2-ti2v-5b.json", "--blocks", "2", "--scale", "0.5",
                    "-o", source], check=True, stdout=subprocess.DEVNULL)
    runs = Runs(program, source, folder)
    runs.run()
    expected, size = digest(runs.out), runs.out.stat().st_size
    print(f"input {source.stat().st_size >> 20} MiB, output {size >> 20} MiB")

    hits = resumed = 0
    for number in range(KILLS):
        runs.clean()
        offset = size * (2 * number + 1) // (2 * KILLS)
        if not runs.kill_at(offset):
            continue
        hits += 1
        check(not runs.out.exists(), f"killed at {offset}: the final name exists")
        check(runs.partial.exists(), f"killed at {offset}: no .partial file")
        resumed += rows(runs.journal) > 0
        if number % 3 == 1:  # killed again while it resumes
            runs.kill_at(min(size, offset + size // 8), "--resume")
            check(not runs.out.exists() or digest(runs.out) == expected, "a resumed run left another file")
        if not runs.out.exists():
            runs.run("--resume")
        check(digest(runs.out) == expected, f"killed at {offset}: the resumed file differs")
        check(not runs.partial.exists() and not runs.journal.exists(), "files were left behind")
        print(f"killed at {100 * offset // size} %: the same bytes")
    check(hits >= KILLS - 1, f"only {hits} of {KILLS} runs could be killed in time")
    check(resumed >= KILLS // 2, f"only {resumed} runs had rows to resume")

    # What does not fit is refused, and nothing is lost by asking.
    runs.clean()
    check(runs.kill_at(size // 2), "not killed")
    before = (digest(runs.partial), runs.journal.read_text())
    for what in (["--seed", "8"], ["--exclude", "ffn"]):
        command = [word for word in map(str, runs.command("--resume")) if word not in ("--seed", "7")] + what
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        check(result.returncode == 1 and "resume-mismatch" in result.stderr, f"{what}: {result.stderr}")
    check("resume-mismatch" in runs.run("--resume", code=1, to="int8").stderr, "another format")
    stamp = source.stat()
    os.utime(source, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1_000_000_000))
    check("resume-mismatch" in runs.run("--resume", code=1).stderr, "another input")
    os.utime(source, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    check(before == (digest(runs.partial), runs.journal.read_text()), "a refusal changed the unfinished files")
    runs.run("--resume")
    check(digest(runs.out) == expected, "the run after the refusals differs")

    # Stopped, not killed: exit 130, and the same way on.
    runs.clean()
    process = subprocess.Popen(list(map(str, runs.command())), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None and allocated(runs.partial) < size // 2:
        time.sleep(0.0005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    check(process.returncode == 130 and b"--resume" in said, f"Ctrl-C: exit {process.returncode}: {said}")
    check(not runs.out.exists(), "Ctrl-C left a file under the final name")
    runs.run("--resume")
    check(digest(runs.out) == expected, "the run after Ctrl-C differs")
    print(f"{hits} kills, {resumed} with rows to resume")


if __name__ == "__main__":
    work = pathlib.Path(tempfile.mkdtemp(prefix="mezzotint-kill-"))
    try:
        main(*sys.argv[1:4], work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
