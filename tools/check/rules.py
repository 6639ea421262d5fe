#!/usr/bin/env python3
"""The house rules as programs. Each rule reads the tree (or the built library) and returns one line per violation.

    tools/check/rules.py                          every rule that needs no build
    tools/check/rules.py --library build/lib/libmezzotint.a
    tools/check/rules.py --rule includes --rule ascii

Exit code 0: no violation; 1: violations, listed; 2: usage. A rule that finds nothing to look at is a violation: a guard
that sees nothing guards nothing. tests/check/rules_test.py feeds every rule a bad sample that it must catch.
"""
import argparse
import re
import subprocess
import sys
from pathlib import Path

# Lowest first; a room may include itself and the rooms before it. Tier 2 (libtorch) sees tier 1's library.
LIBRARY_ROOMS = ["base", "kernel", "formats", "io", "checkpoint", "adapter", "convert"]
TORCH_ROOMS = ["tensor", "nn", "models", "run"]
ROOMS = {room: rooms[:rooms.index(room) + 1]
         for rooms in (LIBRARY_ROOMS + ["cli"], LIBRARY_ROOMS + TORCH_ROOMS) for room in rooms}
MAX_LINES = 600

CPP = {".h", ".cpp", ".cu", ".cuh"}
SOURCE = CPP | {".py", ".sh", ".cmake"}
TEXT = SOURCE | {".txt", ".json", ".md", ".toml", ".yml", ".yaml", ".in", ".ini", ".cfg"}

# Headers without templates or inline functions that the linker could pick from an AVX-512 object for everyone.
ISA_HEADERS = {"cstddef", "cstdint", "cstring", "cmath", "cfloat", "climits",
               "stddef.h", "stdint.h", "string.h", "math.h", "float.h", "limits.h"}


class Tree:
    """The tracked and not ignored files below a root; without git, all files outside build and dist."""

    def __init__(self, root):
        self.root = Path(root).resolve()
        listed = subprocess.run(["git", "-C", str(self.root), "ls-files", "-z", "--cached", "--others",
                                 "--exclude-standard"], capture_output=True, check=False)
        if listed.returncode == 0 and (self.root / ".git").exists():
            names = sorted(set(listed.stdout.decode().split("\0")) - {""})
        else:
            names = sorted(str(p.relative_to(self.root)) for p in self.root.rglob("*") if p.is_file())
            names = [n for n in names if n.split("/")[0] not in ("build", "dist", ".git")]
        self.files = [n for n in names if (self.root / n).is_file()]

    def text(self, name):
        return (self.root / name).read_bytes().decode("utf-8", errors="replace")

    def select(self, suffixes, under=""):
        return [n for n in self.files if n.startswith(under) and Path(n).suffix in suffixes]

    def scripts(self):
        """Files without a suffix that are programs or makefiles."""
        found = [n for n in self.files if Path(n).suffix == "" and
                 (Path(n).name == "Makefile" or (self.root / n).read_bytes()[:2] == b"#!")]
        return found + [n for n in self.files if Path(n).name == "CMakeLists.txt"]


def line_of(text, position):
    return text.count("\n", 0, position) + 1


# --- includes ---------------------------------------------------------------------------------------------------------
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.M)
TORCH = re.compile(r"^(torch|ATen|c10|caffe2)/")


def rule_includes(tree, _options):
    """Rooms include only the rooms below them, by full path; no torch header in tier 1."""
    seen = 0
    for name in tree.select(CPP, "src/mezzotint/"):
        seen += 1
        parts = name.split("/")
        room = parts[2] if len(parts) > 3 else None
        if room not in ROOMS:
            yield f"{name}: lies in no known room ({', '.join(ROOMS)})"
            continue
        text = tree.text(name)
        for match in INCLUDE.finditer(text):
            where = f"{name}:{line_of(text, match.start())}"
            quoted, target = match.group(1) == '"', match.group(2)
            if TORCH.match(target) and room not in TORCH_ROOMS:
                yield f"{where}: tier 1 includes {target}"
            if target.startswith("mezzotint/"):
                other = target.split("/")[1]
                if other not in ROOMS:
                    yield f"{where}: {target} is in no known room"
                elif other not in ROOMS[room]:
                    yield f"{where}: {room} includes {target}, a room above it"
                elif not quoted:
                    yield f"{where}: write \"{target}\" in quotes"
            elif quoted:
                yield f"{where}: \"{target}\" must be written from the root, \"mezzotint/ROOM/FILE.h\""
    if not seen:
        yield "no source found under src/mezzotint"


# --- format names -----------------------------------------------------------------------------------------------------
FORMAT_NAME = re.compile(r'\.name\s*=\s*"([a-z0-9_]+)"')
EXCUSE = re.compile(r"//\s*names a format:\s*\S.{9,}")
# Tables of data about other programs and published models, where names are the content.
NAMING_DATA = re.compile(r"^src/mezzotint/(convert/presets?(/|_)|cli/foreign)")


def strip_comments(text):
    """Blanks comments, keeps strings, newlines and positions."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|'
                         r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.S)

    def blank(match):
        token = match.group(0)
        return re.sub(r"[^\n]", " ", token) if token[0] == "/" else token
    return pattern.sub(blank, text)


def format_folders(tree):
    row = re.compile(r"(src/mezzotint/formats/[^/]+/)format\.cpp")
    return {match.group(1) for match in map(row.fullmatch, tree.files) if match}


def quantized_format_names(tree):
    names = set()
    for folder in format_folders(tree):
        text = strip_comments(tree.text(folder + "format.cpp"))
        if re.search(r"\.quantized\s*=\s*false", text):
            continue  # plain dtypes share their names with the number formats of base/
        names.update(FORMAT_NAME.findall(text) or [folder.split("/")[3]])
    return names


def rule_format_names(tree, _options):
    """A format is known by name in its own folder only: no central enum, no switch, no list."""
    names = quantized_format_names(tree)
    if not names:
        yield "no format found under src/mezzotint/formats/*/format.cpp"
        return
    # Also as the generated table spells them, format_NAME.
    either = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    word = re.compile(rf"(?<![A-Za-z0-9_])(?:format_)?({either})(?![A-Za-z0-9_])")
    folders = tuple(format_folders(tree))
    for name in tree.select(CPP, "src/") + tree.select(CPP, "bench/") + tree.select(CPP, "fuzz/"):
        if name.startswith(folders) or NAMING_DATA.match(name):
            continue
        text = tree.text(name)
        lines = text.split("\n")
        for match in word.finditer(strip_comments(text)):
            number = line_of(text, match.start())
            if not any(EXCUSE.search(line) for line in lines[max(number - 2, 0):number]):
                yield (f"{name}:{number}: knows the format {match.group(1)}; ask the table, or say why on the line or "
                       "above it with '// names a format: REASON'")


# --- size, characters, places -----------------------------------------------------------------------------------------
def rule_length(tree, _options):
    """No source, test or script over 600 lines."""
    names = set(tree.select(SOURCE) + tree.scripts())
    if not names:
        yield "no source found"
    for name in sorted(names):
        count = tree.text(name).count("\n")
        if count > MAX_LINES:
            yield f"{name}: {count} lines, more than {MAX_LINES}"


def rule_ascii(tree, _options):
    """Sources are ASCII."""
    names = set(tree.select(TEXT) + tree.scripts())
    if not names:
        yield "no source found"
    for name in sorted(names):
        for number, line in enumerate((tree.root / name).read_bytes().split(b"\n"), 1):
            if any(byte > 126 or (byte < 32 and byte not in (9, 13)) for byte in line):
                yield f"{name}:{number}: not plain ASCII"
                break


# Written in pieces, or this file would be its own violation.
MACHINE_FOLDERS = "|".join(["wo" + "rk", "ro" + "ot", "ho" + r"me/\w+", "Us" + r"ers/\w+"])
MACHINE_PATH = re.compile(rf"(?<![\w.$}}-])/(?:{MACHINE_FOLDERS})(?![\w-])")
REGISTRY = re.compile("|".join(re.escape(a + b) for a, b in [
    ("pypi", ".org"), ("files.python", "hosted.org"), ("deb.", "debian.org"), ("ftp.", "debian.org"),
    ("archive.", "ubuntu.com"), ("download.", "pytorch.org"), ("registry.", "npmjs.org"), ("conda.", "anaconda.org"),
    ("proxy.", "golang.org"), ("static.", "crates.io"), ("ghcr", ".io"), ("docker", ".io"), ("quay", ".io"),
    ("artifact", "ory"), ("nex", "us."), ("--index-", "url"), ("--extra-index-", "url")]))


def rule_places(tree, _options):
    """No path of one machine and no package registry's host: where packages come from is the machine's setting."""
    names = [n for n in tree.files if Path(n).suffix in TEXT or n in set(tree.scripts())]
    if not names:
        yield "no file found"
    for name in names:
        for number, line in enumerate(tree.text(name).split("\n"), 1):
            for what, pattern in (("a machine's path", MACHINE_PATH), ("a registry's host", REGISTRY)):
                match = pattern.search(line)
                if match:
                    yield f"{name}:{number}: {what}: {match.group(0)}"


# --- ISA files --------------------------------------------------------------------------------------------------------
def rule_isa(tree, _options):
    """Files compiled once per instruction set include no STL: its inline functions are weak symbols."""
    names = [n for n in tree.select({".cpp"}, "src/") if re.search(r"\.isa(_\w+)?\.cpp$", n)]
    if not names:
        yield "no *.isa.cpp found"
    for name in names:
        text = tree.text(name)
        for match in INCLUDE.finditer(text):
            target = match.group(2)
            if match.group(1) == "<" and target not in ISA_HEADERS and not target.endswith("intrin.h"):
                yield f"{name}:{line_of(text, match.start())}: <{target}> in a file compiled per instruction set"


# --- formatting -------------------------------------------------------------------------------------------------------
def rule_format(tree, _options):
    """clang-format has nothing to change."""
    names = [n for n in tree.select(CPP) if not n.endswith(".cuh")]
    if not names:
        yield "no C++ source found"
        return
    try:
        done = subprocess.run(["clang-format", "--dry-run", "-Werror", *names], cwd=tree.root, capture_output=True,
                              text=True, check=False)
    except FileNotFoundError:
        yield "clang-format is not installed (tools/bootstrap installs it)"
        return
    if done.returncode:
        bad = sorted(set(re.findall(r"^(.+?):\d+:\d+: error:", done.stderr, re.M)))
        yield from (f"{name}: run `make format`" for name in bad)
        if not bad:
            yield f"clang-format failed: {done.stderr.strip()[:300]}"


# --- the built library ------------------------------------------------------------------------------------------------
FORBIDDEN = re.compile(
    r"^(?:_?_?(?:v?f?printf|v?dprintf|puts|fputs|fputc|putchar|putc|perror|psignal)(?:_chk|_unlocked)?|stdout|stderr|"
    r"abort|exit|_exit|_Exit|quick_exit|"
    r"std::(?:cout|cerr|clog|wcout|wcerr|wclog)|"
    r"fmt::v\d+::(?:detail::)?(?:vprint|print)\(.*\)|"
    r"std::(?:__1::|__cxx11::)?(?:abort|exit)\(.*\))$")


def rule_silent(tree, options):
    """The library neither prints nor ends the process. (__assert_fail is allowed: wrong code is an assert.)"""
    if options.library is None:
        yield "needs --library FILE"
        return
    done = subprocess.run(["nm", "-C", "--undefined-only", str(options.library)], capture_output=True, text=True,
                          check=False)
    objects = 0
    current = str(options.library)
    for line in done.stdout.split("\n"):
        if line.endswith(".o:"):
            objects += 1
            current = line[:-1]
            continue
        match = re.match(r"\s+[UwvV]\s+(.*?)(?:@.*)?$", line)
        # {fmt} has functions that print; whoever calls one is found.
        if current != "fmt.cpp.o" and match and FORBIDDEN.match(match.group(1)):
            yield f"{current}: uses {match.group(1)}"
    if done.returncode or not objects:
        yield f"{options.library}: nm saw no object ({done.stderr.strip()})"


RULES = {"includes": rule_includes, "format-names": rule_format_names, "length": rule_length, "ascii": rule_ascii,
         "places": rule_places, "isa": rule_isa, "format": rule_format, "silent": rule_silent}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2])
    parser.add_argument("--library", type=Path, help="static library that the rule 'silent' reads")
    parser.add_argument("--rule", action="append", choices=sorted(RULES), help="only this rule (repeatable)")
    options = parser.parse_args(arguments)
    chosen = options.rule or [name for name in RULES if name != "silent" or options.library]
    tree = Tree(options.root)
    bad = 0
    for name in chosen:
        found = list(RULES[name](tree, options))
        bad += len(found)
        print(f"{'FAIL' if found else 'ok  '} {name}: {RULES[name].__doc__.splitlines()[0]}")
        for line in found:
            print(f"     {line}")
    print(f"{len(chosen)} rules, {bad} violations")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
