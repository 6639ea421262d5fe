"""What every test of the program shares."""
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

PROGRAM = None  # set by run.py
LISTED = ["compare", "convert", "correct", "doctor", "edit", "extract", "formats", "inspect", "merge", "plan", "presets", "recipes",
          "repair", "verify"]
HIDDEN = ["completions", "man"]


def digest(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


class CliTest(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="mezzotint-cli-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def run_cli(self, *arguments, code=0, env=None):
        environment = {**os.environ, **(env or {})}
        result = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, cwd=self.dir,
                                env=environment, timeout=300)
        self.assertEqual(result.returncode, code, f"{arguments}\nstdout: {result.stdout}\nstderr: {result.stderr}")
        if code not in (0, 3, 130):
            self.assertRegex(result.stderr, r"(?m)^mezzotint: error: ")
            self.assertEqual(result.stdout, "")
        return result

    def run_json(self, *arguments, code=0):
        return json.loads(self.run_cli(*arguments, "--json", code=code).stdout)

    def listing(self):
        return {str(path.relative_to(self.dir)): digest(path) for path in self.dir.rglob("*") if path.is_file()}
