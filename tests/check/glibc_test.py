#!/usr/bin/env python3
"""tools/dist/check-glibc on small programs: one that passes, and one for every reason to fail."""
import subprocess
import tempfile
import unittest
from pathlib import Path

CHECK = Path(__file__).resolve().parents[2] / "tools" / "dist" / "check-glibc"
STATIC = ["-static-libstdc++", "-static-libgcc"]


class GlibcTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def build(self, *flags):
        source = self.folder / "p.cpp"
        source.write_text("#include <stdexcept>\nint main(int n, char**) {\n"
                          "  try { if (n > 9) throw std::runtime_error(\"\"); } catch (...) { return 1; }\n"
                          "  return 0;\n}\n")
        program = self.folder / "p"
        subprocess.run(["g++", "-O1", str(source), "-o", str(program), *flags], check=True)
        return program

    def check(self, program, *baseline):
        return subprocess.run([str(CHECK), str(program), *baseline], capture_output=True, text=True, check=False)

    def test_passes(self):
        done = self.check(self.build(*STATIC), "99.0")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("newest symbol version GLIBC_2.", done.stdout)

    def test_newer_than_the_baseline(self):
        done = self.check(self.build(*STATIC), "2.1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("newer than the baseline 2.1", done.stderr)

    def test_versions_compare_as_numbers(self):
        # 2.9 is older than 2.34 although it sorts after it as text.
        self.assertEqual(self.check(self.build(*STATIC), "2.9").returncode, 1)

    def test_needs_another_library(self):
        done = self.check(self.build(), "99.0")
        self.assertEqual(done.returncode, 1)
        self.assertIn("libstdc++.so.6", done.stderr)

    def test_sees_nothing(self):
        self.assertNotEqual(self.check(self.folder / "absent").returncode, 0)
        static = self.check(self.build("-static"))
        self.assertEqual(static.returncode, 1)
        self.assertIn("not a dynamic program", static.stderr)


if __name__ == "__main__":
    unittest.main()
