#!/usr/bin/env python3
"""tools/bootstrap installs what is missing and nothing else, on stand-ins for apt and dpkg."""
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BOOTSTRAP = ROOT / "tools" / "bootstrap"

# dpkg-query answers from the file `installed`; apt-get appends to it and to `log`.
DPKG = '#!/bin/bash\ngrep -qxF "${@: -1}" "$STATE/installed" && echo -n installed\n'
APT = '''#!/bin/bash
echo "apt-get $*" >>"$STATE/log"
[ "${BROKEN:-}" = 1 ] && exit 100
take=0
for word in "$@"; do
  [ $take = 1 ] && [ "${word#-}" = "$word" ] && [ "${LAZY:-}" != 1 ] && echo "$word" >>"$STATE/installed"
  [ "$word" = --no-install-recommends ] && take=1
done
exit 0
'''


class BootstrapTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.state = Path(self.folder.name)
        self.bin = self.state / "bin"
        self.bin.mkdir()
        (self.state / "installed").touch()
        (self.state / "log").touch()
        for tool in ("bash", "cat", "grep", "sed", "env", "printf"):
            self.bin.joinpath(tool).symlink_to(self.which(tool))
        self.program("id", '#!/bin/bash\necho "${FAKE_UID:-0}"\n')

    def which(self, tool):
        done = subprocess.run(["bash", "-c", f"type -P {tool}"], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def program(self, name, text):
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def debian(self):
        self.program("dpkg-query", DPKG)
        self.program("apt-get", APT)

    def run_bootstrap(self, *arguments, **environment):
        return subprocess.run([str(self.bin / "bash"), str(BOOTSTRAP), *arguments], capture_output=True, text=True,
                              check=False, env={"PATH": str(self.bin), "STATE": str(self.state), **environment})

    def log(self):
        return (self.state / "log").read_text().splitlines()

    def packages(self):
        return self.run_bootstrap("--list").stdout.split()

    def test_syntax(self):
        for script in ("tools/bootstrap", ".ci/run", "tools/dist/pack", "tools/dist/check-glibc"):
            done = subprocess.run(["bash", "-n", str(ROOT / script)], capture_output=True, text=True, check=False)
            self.assertEqual((done.returncode, done.stderr), (0, ""), script)
            self.assertTrue(os.access(ROOT / script, os.X_OK), script)

    def test_installs_once(self):
        self.debian()
        packages = self.packages()
        self.assertIn("ninja-build", packages)
        first = self.run_bootstrap()
        self.assertEqual(first.returncode, 0, first.stderr)
        self.assertEqual(len(self.log()), 2, self.log())  # update, install
        self.assertEqual((self.state / "installed").read_text().split(), packages)
        again = self.run_bootstrap()
        self.assertEqual((again.returncode, again.stdout, again.stderr), (0, "", ""))
        self.assertEqual(len(self.log()), 2, "a second run touched the system")

    def test_installs_only_what_is_missing(self):
        self.debian()
        have = [p for p in self.packages() if p != "ccache"]
        (self.state / "installed").write_text("\n".join(have) + "\n")
        self.assertEqual(self.run_bootstrap("--missing").stdout.split(), ["ccache"])
        self.assertEqual(self.run_bootstrap().returncode, 0)
        self.assertTrue(self.log()[-1].endswith("--no-install-recommends ccache"), self.log())

    def test_failures_are_failures(self):
        self.debian()
        self.assertNotEqual(self.run_bootstrap(BROKEN="1").returncode, 0)
        lazy = self.run_bootstrap(LAZY="1")
        self.assertEqual(lazy.returncode, 1)
        self.assertIn("still missing", lazy.stderr)

    def test_needs_root_or_sudo(self):
        self.debian()
        refused = self.run_bootstrap(FAKE_UID="1000")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("needs root or sudo", refused.stderr)
        self.assertEqual(self.log(), [])
        self.program("sudo", '#!/bin/bash\necho "sudo $*" >>"$STATE/log"\nexec "$@"\n')
        self.assertEqual(self.run_bootstrap(FAKE_UID="1000").returncode, 0)
        self.assertTrue(self.log()[0].startswith("sudo apt-get"), self.log())

    def test_elsewhere_prints_the_list_and_stops(self):
        done = self.run_bootstrap()
        self.assertEqual(done.returncode, 1)
        for package in self.packages():
            self.assertIn(package, done.stderr)

    def test_unknown_option(self):
        self.assertEqual(self.run_bootstrap("--force").returncode, 2)


if __name__ == "__main__":
    unittest.main()
