#!/usr/bin/env python3
"""Fails if an ISA object holds a weak symbol.

An inline function that is emitted into an object compiled with -mavx512f is a weak symbol, and the linker keeps one copy
of those for the whole program: maybe that one, on a machine without AVX-512. Optimized builds hide the hazard by inlining,
so every *.isa.cpp of the build is compiled again at -O0, for each of its levels, and looked at with nm.

usage: weak_symbols.py BUILD_DIR     (which has a compile_commands.json)
"""

import concurrent.futures
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

# Defined weak functions and objects, unique globals, and undefined weak references.
WEAK = set("WVuwv")
WRAPPER = re.compile(r"/isa/[^/]+\.[0-9a-f]{8}\.[a-z0-9_]+\.cpp$")
CONTROL = "inline int hazard(int x) { return x + 1; }\nint (*keep())(int) { return hazard; }\n"


def compile_at_o0(command, source, output):
    args = []
    skip = False
    for arg in shlex.split(command):
        if skip:
            skip = False
        elif arg in ("-o", "-MF", "-MT", "-MQ"):
            skip = True
        elif arg in ("-MD", "-MMD", "-c") or arg.startswith("-fsanitize") or arg == source:
            continue
        elif not re.match(r"-O\w*$", arg):
            args.append(arg)
    cache = shutil.which("ccache")
    subprocess.run([*([cache] if cache else []), *args, "-O0", "-g0", "-c", source, "-o", output], check=True)


def weak_symbols(path):
    lines = subprocess.run(["nm", "-C", path], check=True, capture_output=True, text=True).stdout.splitlines()
    symbols = [(m[1], m[2]) for m in (re.match(r"(?:[0-9a-f]+)?\s+(\w) (.+)", line) for line in lines) if m]
    if not any(kind == "T" for kind, _ in symbols):
        sys.exit(f"{path}: nm shows no function; the check sees nothing")
    return [f"{kind} {symbol}" for kind, symbol in symbols if kind in WEAK]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(os.path.join(sys.argv[1], "compile_commands.json"), encoding="utf-8") as file:
        entries = [e for e in json.load(file) if WRAPPER.search(e["file"])]
    if not entries:
        sys.exit("no ISA object in compile_commands.json; the check sees nothing")

    failed = False
    with tempfile.TemporaryDirectory() as folder:

        def check(numbered):
            number, entry = numbered
            output = os.path.join(folder, f"{number}.o")
            source = os.path.join(entry["directory"], entry["file"])
            compile_at_o0(entry["command"], entry["file"], output)
            return source, weak_symbols(output)

        control = os.path.join(folder, "control.cpp")
        with open(control, "w", encoding="utf-8") as file:
            file.write(CONTROL)
        compile_at_o0(entries[0]["command"].replace(entries[0]["file"], control), control, control + ".o")
        if not weak_symbols(control + ".o"):
            sys.exit("the planted inline function was not found; the check sees nothing")

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for source, weak in pool.map(check, enumerate(entries)):
                for symbol in weak:
                    print(f"{source}: weak symbol {symbol}")
                    failed = True
    print(f"{len(entries)} ISA objects compiled at -O0: {'weak symbols found' if failed else 'no weak symbol'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
