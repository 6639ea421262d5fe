#!/usr/bin/env python3
"""Every house rule must pass a good tree and catch a bad sample (the negative control)."""
import argparse
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "check"))
import rules  # noqa: E402

FORMAT_ROW = 'extern const Format row;\nconst Format row{.name = "toy8", .summary = "a toy"};\n'
GOOD = {
    ".clang-format": (ROOT / ".clang-format").read_text(),
    "src/mezzotint/base/a.h": "#pragma once\n#include <cstdint>\n",
    "src/mezzotint/kernel/k.isa.cpp": '#include <immintrin.h>\n\n#include "mezzotint/base/a.h"\n',
    "src/mezzotint/formats/toy8/format.cpp": FORMAT_ROW,
    "src/mezzotint/formats/half/format.cpp": 'const Format h{.name = "half", .quantized = false};\n',
    "src/mezzotint/io/r.cpp": '#include "mezzotint/base/a.h"\n// toy8 in a comment is prose\nint half;\n',
    "src/mezzotint/convert/presets/p.cpp": 'const char* preset = "toy8";\n',
    "tools/run.py": "print('see /usr/share/doc, build/work/x and homework/notes')\n",
}


class RuleTest(unittest.TestCase):
    def check(self, rule, changes=None, library=None):
        """The violations of one rule over the good tree with changes (None removes a file)."""
        with tempfile.TemporaryDirectory() as folder:
            for name, text in {**GOOD, **(changes or {})}.items():
                if text is None:
                    continue
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text.encode())
            return list(rules.RULES[rule](rules.Tree(folder), argparse.Namespace(library=library)))

    def assert_caught(self, rule, name, text, expected):
        found = self.check(rule, {name: text})
        self.assertTrue(any(line.startswith(name) and expected in line for line in found), found)

    def test_good_tree_passes(self):
        for rule in rules.RULES:
            if rule != "silent":
                self.assertEqual(self.check(rule), [], rule)

    def test_empty_tree_fails(self):
        nothing = {name: None for name in GOOD}
        for rule in rules.RULES:
            if rule != "silent":
                self.assertTrue(self.check(rule, nothing), rule)

    def test_includes(self):
        bad = "src/mezzotint/base/b.h"
        self.assert_caught("includes", bad, '#include "mezzotint/io/r.h"\n', "a room above it")
        self.assert_caught("includes", bad, "#include <torch/torch.h>\n", "tier 1 includes torch/")
        self.assert_caught("includes", bad, "#  include <ATen/core/Tensor.h>\n", "tier 1 includes ATen/")
        self.assert_caught("includes", bad, '#include "a.h"\n', "from the root")
        self.assert_caught("includes", bad, "#include <mezzotint/base/a.h>\n", "in quotes")
        self.assert_caught("includes", "src/mezzotint/attic/b.h", "int x;\n", "no known room")

    def test_format_names(self):
        bad = "src/mezzotint/io/bad.cpp"
        self.assert_caught("format-names", bad, 'auto n = "toy8";\n', "knows the format toy8")
        self.assert_caught("format-names", bad, 'auto n = "use toy8, please";\n', "knows the format toy8")
        self.assert_caught("format-names", bad, "enum class Kind { none, toy8 };\n", "knows the format toy8")
        self.assert_caught("format-names", bad, "switch (k) {\n  case toy8: break;\n}\n", ":2: knows the format toy8")
        self.assert_caught("format-names", "bench/b.cpp", 'run("toy8");\n', "knows the format toy8")
        self.assert_caught("format-names", bad, "auto& f = format_toy8;\n", "knows the format toy8")
        shared = "src/mezzotint/formats/common/c.h"
        self.assert_caught("format-names", shared, 'auto n = "toy8";\n', "knows the format toy8")
        excused = 'auto n = "toy8";  // names a format: the legacy marker stands for it\n'
        self.assertEqual(self.check("format-names", {bad: excused}), [])
        above = '// names a format: the legacy marker stands for it\nauto n = "toy8";\n'
        self.assertEqual(self.check("format-names", {bad: above}), [])
        self.assert_caught("format-names", bad, above + 'auto m = "toy8";\n', ":3: knows the format toy8")
        self.assert_caught("format-names", bad, 'auto n = "toy8";  // names a format:\n', "knows the format toy8")
        self.assertEqual(self.check("format-names", {bad: 'auto n = "toy8x";\n'}), [])

    def test_length(self):
        self.assert_caught("length", "src/mezzotint/io/long.cpp", "\n" * 601, "601 lines")
        self.assert_caught("length", "tests/long.py", "\n" * 601, "601 lines")
        self.assert_caught("length", "tools/long", "#!/bin/sh\n" + "\n" * 601, "602 lines")
        self.assertEqual(self.check("length", {"src/mezzotint/io/long.cpp": "\n" * 600}), [])

    def test_ascii(self):
        self.assert_caught("ascii", "src/mezzotint/io/u.cpp", "// caf\u00e9\n", ":1: not plain ASCII")
        self.assert_caught("ascii", "docs/u.md", "ok\nan en dash \u2013\n", ":2: not plain ASCII")

    def test_places(self):
        for path in ("/wo" + "rk/main", "/ro" + "ot/x", "/ho" + "me/ann/x"):
            self.assert_caught("places", "tools/p.py", f"open('{path}')\n", "a machine's path")
        self.assert_caught("places", "README.md", "https://" + "pypi" + ".org/simple\n", "a registry's host")
        self.assert_caught("places", "tools/get.sh", "pip install --index-" + "url x\n", "a registry's host")

    def test_isa(self):
        self.assert_caught("isa", "src/mezzotint/kernel/k.isa.cpp", "#include <algorithm>\n", "<algorithm>")
        self.assert_caught("isa", "src/mezzotint/kernel/k.isa_avx2.cpp", "#include <vector>\n", "<vector>")

    def test_format(self):
        self.assert_caught("format", "src/mezzotint/io/f.cpp", "int   main( ){return 0 ;}\n", "make format")

    def library(self, folder, source, archive="lib.a"):
        Path(folder, "x.cpp").write_text(source)
        subprocess.run(["g++", "-std=c++20", "-O1", "-c", "x.cpp", "-o", "x.o"], cwd=folder, check=True)
        subprocess.run(["ar", "rcs", archive, "x.o"], cwd=folder, check=True)
        return Path(folder, archive)

    def test_silent(self):
        bad = {
            "printf": '#include <cstdio>\nvoid f(int x) { std::printf("%d", x); }\n',
            "std::cout": "#include <iostream>\nvoid f() { std::cout << 1; }\n",
            "stderr": '#include <cstdio>\nvoid f() { std::fwrite("x", 1, 1, stderr); }\n',
            "abort": "#include <cstdlib>\nvoid f() { std::abort(); }\n",
            "exit": "#include <cstdlib>\nvoid f() { std::exit(1); }\n",
            "fmt::": '#include <fmt/core.h>\nvoid f(int x) { fmt::print("{}", x); }\n',
        }
        for symbol, source in bad.items():
            with self.subTest(symbol), tempfile.TemporaryDirectory() as folder:
                found = self.check("silent", library=self.library(folder, source))
                self.assertTrue(any(f"uses {symbol}" in line for line in found), found)

    def test_silent_allows_assert_and_snprintf(self):
        source = ("#include <cassert>\n#include <cstdio>\n"
                  'void f(char* b, int x) { assert(x); std::snprintf(b, 8, "%d", x); }\n')
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(self.check("silent", library=self.library(folder, source)), [])

    def test_silent_sees_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertTrue(self.check("silent", library=Path(folder, "absent.a")))
            subprocess.run(["ar", "rcs", "empty.a"], cwd=folder, check=True)
            self.assertTrue(self.check("silent", library=Path(folder, "empty.a")))


if __name__ == "__main__":
    unittest.main()
