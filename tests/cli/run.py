"""Runs the real program: python3 run.py PROGRAM [unittest arguments]. Standard library only."""
import hashlib
import json
import os
import pathlib
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import checkpoints

PROGRAM = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else None
LISTED = ["compare", "convert", "doctor", "edit", "formats", "inspect", "plan", "presets", "repair", "verify"]
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


class HelpTest(CliTest):
    def test_help_lists_the_commands(self):
        text = self.run_cli("--help").stdout
        for command in LISTED:
            self.assertRegex(text, rf"(?m)^  {command}\b")
        for command in HIDDEN:
            self.assertNotRegex(text, rf"(?m)^  {command}\b")

    def test_help_of_every_command(self):
        for command in LISTED + HIDDEN:
            text = self.run_cli(command, "--help").stdout
            self.assertIn("--help", text)
            self.assertIn(f"mezzotint {command}", text)

    def test_version(self):
        self.assertRegex(self.run_cli("--version").stdout, r"^mezzotint \d+\.\d+\.\d+\n$")

    def test_usage_errors(self):
        for arguments in [(), ("nonsense",), ("convert",), ("convert", "--nonsense", "a"), ("convert", "a", "--to"),
                          ("convert", "a", "--threads", "many"), ("convert", "a", "--threads", "0"), ("--nonsense",),
                          ("convert", "a", "--max-memory", "lots"), ("convert", "a", "--rounding", "up"),
                          ("convert", "a", "--to", "no_such_format"), ("convert", "a", "--streaming-mode", "fast"),
                          ("convert", "a", "--fallback", "no_such_format"), ("presets", "no_such_preset"),
                          ("completions", "tcsh"), ("edit", "a", "-o", "b", "--set-metadata", "novalue"),
                          ("plan", "a", "--json", "--template")]:
            with self.subTest(arguments=arguments):
                self.run_cli(*arguments, code=2)

    def test_unknown_option_names_the_nearest(self):
        self.assertIn("did you mean --dry-run?", self.run_cli("convert", "a", "--dryrun", code=2).stderr)

    def test_options_take_underscores(self):
        checkpoints.model(self.dir / "m.safetensors")
        self.run_cli("convert", "m.safetensors", "-o", "out.safetensors", "--max_memory=64M", "--dry_run")

    def test_foreign_options_are_answered(self):
        for option, answer in [("--comfy_quant", "not needed"), ("--save-quant-metadata", "not needed"),
                               ("--scaling_mode", "mezzotint formats"), ("--exclude-layers", "--exclude"),
                               ("--custom-layers", "--layer-config"), ("--num_iter", "no gradient search"),
                               ("--convert-fp8-scaled", "mezzotint repair"), ("--low-memory", "--max-memory"),
                               ("-lm", "--max-memory"), ("--wan", "--preset"), ("--merge-loras", "adapters"),
                               ("--quip-hadamard", "QuIP"), ("--report-quality", "mezzotint compare"),
                               ("-i", "without an option"), ("--input", "without an option"),
                               ("--manual_seed=7", "--seed"), ("--nvfp4", "--to nvfp4")]:
            with self.subTest(option=option):
                stderr = self.run_cli("convert", "a.safetensors", option, code=2).stderr
                self.assertIn("has no option", stderr)
                self.assertIn(answer, stderr)


class ConvertTest(CliTest):
    def setUp(self):
        super().setUp()
        self.model = checkpoints.model(self.dir / "m_bf16.safetensors")

    def test_default_name_and_contents(self):
        result = self.run_cli("convert", self.model)
        tensors, metadata = checkpoints.read(self.dir / "m_fp8_e4m3fn_scaled.safetensors")
        self.assertEqual(tensors["blocks.0.attn.q.weight"][0], "F8_E4M3")
        self.assertEqual(tensors["blocks.0.attn.q.weight_scale"][0], "F32")
        source, _ = checkpoints.read(self.model)
        self.assertEqual(tensors["blocks.0.attn.q.bias"], source["blocks.0.attn.q.bias"])
        self.assertEqual(tensors["blocks.0.norm.weight"], source["blocks.0.norm.weight"])
        self.assertEqual(metadata["title"], "a test")
        marker = json.loads(tensors["blocks.0.attn.q.comfy_quant"][2])
        self.assertEqual(marker, {"format": "float8_e4m3fn"})
        self.assertEqual(json.loads(metadata["_quantization_metadata"])["layers"]["blocks.0.attn.q"], marker)
        self.assertIn("quantized layers", result.stdout)
        self.run_cli("verify", "m_fp8_e4m3fn_scaled.safetensors")

    def test_every_target_can_be_written_verified_and_turned_back(self):
        checkpoints.model(self.model, size=128)  # a size that blocks divide
        for entry in self.run_json("formats")["formats"]:
            with self.subTest(format=entry["name"]):
                target = f"out_{entry['name']}.safetensors"
                result = self.run_json("convert", self.model, "-o", target, "--to", entry["name"])["results"][0]
                self.assertGreater(result["bytes_out"], 0)
                self.assertEqual(result["bytes_out"], os.path.getsize(self.dir / target))
                self.assertTrue(self.run_json("verify", target)["sound"])
                self.run_cli("convert", target, "-o", f"back_{target}", "--to", "bf16")
                back, metadata = checkpoints.read(self.dir / f"back_{target}")
                self.assertEqual(back["blocks.0.attn.q.weight"][0], "BF16")
                self.assertFalse([name for name in back if "scale" in name or "comfy_quant" in name])
                self.assertNotIn("_quantization_metadata", metadata)
                if not entry["comfyui"] and entry["quantized"]:
                    warning = self.run_cli("convert", self.model, "--dry-run", "--to", entry["name"]).stderr
                    self.assertIn("ComfyUI cannot load", warning)
                    self.assertIn(entry["nearest"], warning)

    def test_dry_run_changes_nothing(self):
        before = self.listing()
        self.run_cli("convert", self.model, "--dry-run")
        plan = self.run_json("convert", self.model, "--dry-run")["plans"][0]
        self.assertEqual(self.listing(), before)
        self.run_cli("convert", self.model)
        self.assertEqual(plan["bytes_out"], os.path.getsize(self.dir / "m_fp8_e4m3fn_scaled.safetensors"))

    def test_rules_and_patterns(self):
        def codes(*options):
            self.run_cli("convert", self.model, "-o", "out.safetensors", "--force", *options)
            tensors, _ = checkpoints.read(self.dir / "out.safetensors")
            return {name: entry[0] for name, entry in tensors.items() if name.endswith(".weight")}, tensors

        dtypes, _ = codes("--exclude", r"blocks\.0\.attn", "--exclude", "mlp")
        self.assertEqual(dtypes["blocks.0.attn.q.weight"], "BF16")
        self.assertEqual(dtypes["blocks.0.mlp.up.weight"], "BF16")
        self.assertEqual(dtypes["blocks.1.attn.q.weight"], "F8_E4M3")
        dtypes, _ = codes("--exclude", "blocks", "--include", r"blocks\.1\.mlp")
        self.assertEqual(dtypes["blocks.0.mlp.up.weight"], "BF16")
        dtypes, tensors = codes("--drop", r"\.bias$")
        self.assertNotIn("blocks.0.attn.q.bias", tensors)
        dtypes, _ = codes("--exclude", "attn", "--fallback", "int8")
        self.assertEqual(dtypes["blocks.0.mlp.up.weight"], "F8_E4M3")
        _, tensors = codes("--full-precision-matrix-mult")
        self.assertTrue(json.loads(tensors["blocks.0.attn.q.comfy_quant"][2])["full_precision_matrix_mult"])
        (self.dir / "config.json").write_text(json.dumps({r"blocks\.0\.attn.*": {"format": "int8"}}))
        dtypes, _ = codes("--layer-config", "config.json", "--fullmatch")
        self.assertEqual(dtypes["blocks.0.attn.q.weight"], "I8")
        self.assertEqual(dtypes["blocks.1.attn.q.weight"], "F8_E4M3")
        self.run_cli("convert", self.model, "-o", "x.safetensors", "--exclude", "(", code=2)
        self.run_cli("convert", self.model, "-o", "x.safetensors", "--preset", "nonsense", code=2)
        self.run_cli("convert", self.model, "-o", "x.safetensors", "--component", "nonsense", code=2)
        codes("--preset", "none", "--component", "all")

    def test_rounding_and_threads(self):
        def bytes_of(*options):
            self.run_cli("convert", self.model, "-o", "out.safetensors", "--force", *options)
            return checkpoints.read(self.dir / "out.safetensors")[0]["blocks.0.attn.q.weight"][2]

        nearest = bytes_of("--rounding", "nearest")
        self.assertEqual(nearest, bytes_of("--threads", "1"))
        self.assertEqual(nearest, bytes_of("-j", "3", "--max-memory", "32MiB"))
        self.assertEqual(nearest, bytes_of("--streaming-mode", "aggressive"))
        random = bytes_of("--rounding", "stochastic", "--seed", "1")
        self.assertEqual(random, bytes_of("--rounding", "stochastic", "--seed", "1", "-j", "1"))
        self.assertNotEqual(random, nearest)
        self.assertNotEqual(random, bytes_of("--rounding", "stochastic", "--seed", "2"))
        self.run_cli("convert", self.model, "--max-memory", "1G", "--streaming-mode", "off", code=2)

    def test_shards(self):
        self.run_cli("convert", self.model, "-o", "out.safetensors", "--max-shard-size", "12kB")
        index = json.loads((self.dir / "out.safetensors.index.json").read_text())
        self.assertGreater(len(set(index["weight_map"].values())), 1)
        self.assertTrue(self.run_json("verify", "out.safetensors.index.json")["sound"])
        self.run_cli("convert", self.model, "-o", "whole.safetensors")
        result = self.run_json("compare", "whole.safetensors", "out.safetensors.index.json")
        self.assertEqual(result["layers"], [])
        self.assertGreater(result["identical_tensors"], 0)

    def test_several_inputs(self):
        folder = self.dir / "models"
        folder.mkdir()
        for name in ("a", "b"):
            checkpoints.model(folder / f"{name}.safetensors")
        (self.dir / "out").mkdir()
        results = self.run_json("convert", "models", "-o", "out", "--to", "int8_tensorwise")["results"]
        self.assertEqual(sorted(path.name for path in (self.dir / "out").iterdir()),
                         sorted(os.path.basename(result["output"]) for result in results))
        self.assertEqual(len(results), 2)
        self.run_cli("convert", folder / "a.safetensors", folder / "b.safetensors")
        self.assertTrue((folder / "a_fp8_e4m3fn_scaled.safetensors").exists())
        self.run_cli("convert", folder / "a.safetensors", folder / "b.safetensors", "-o", "one.safetensors", code=2)

    def test_recipes(self):
        self.run_cli("plan", self.model, "--to", "int8", "--exclude", "mlp", "--save-recipe", "r.json")
        self.run_cli("convert", self.model, "-o", "a.safetensors", "--recipe", "r.json")
        self.run_cli("convert", self.model, "-o", "b.safetensors", "--to", "int8", "--exclude", "mlp")
        self.run_cli("convert", self.model, "-o", "c.safetensors", "--recipe", "b.safetensors")
        self.run_cli("convert", self.model, "-o", "d.safetensors", "--recipe", "r.json", "--to", "bf16")
        self.assertEqual(digest(self.dir / "a.safetensors"), digest(self.dir / "b.safetensors"))
        self.assertEqual(digest(self.dir / "a.safetensors"), digest(self.dir / "c.safetensors"))
        self.assertNotEqual(digest(self.dir / "a.safetensors"), digest(self.dir / "d.safetensors"))
        self.run_cli("convert", self.model, "--recipe", self.model, code=1)
        (self.dir / "bad.json").write_text("{")
        self.run_cli("convert", self.model, "--recipe", "bad.json", code=1)

    def test_errors(self):
        raw = pathlib.Path(self.model).read_bytes()
        (self.dir / "cut.safetensors").write_bytes(raw[:-5])
        (self.dir / "taken.safetensors").write_bytes(b"precious")
        before = self.listing()

        def fails(name, *arguments):
            with self.subTest(error=name):
                self.assertIn(f"[{name}]", self.run_cli("convert", *arguments, code=1).stderr)
                self.assertEqual(self.listing(), before)

        fails("file-not-found", "missing.safetensors")
        fails("truncated-file", "cut.safetensors", "-o", "o.safetensors")
        fails("output-exists", self.model, "-o", "taken.safetensors")
        fails("output-is-input", self.model, "-o", self.model)
        fails("output-is-input", self.model, "-o", self.model, "--force")
        fails("folder-not-found", self.model, "-o", "nowhere/o.safetensors")
        os.link(self.model, self.dir / "hard.safetensors")
        os.symlink(self.model, self.dir / "soft.safetensors")
        before = self.listing()
        fails("output-is-input", self.model, "-o", "hard.safetensors", "--force")
        fails("output-is-input", self.model, "-o", "soft.safetensors", "--force")

    @unittest.skipIf(os.geteuid() == 0, "root may write everywhere")
    def test_unwritable_folder(self):
        (self.dir / "locked").mkdir(mode=0o500)
        self.assertIn("[folder-not-writable]",
                      self.run_cli("convert", self.model, "-o", "locked/o.safetensors", code=1).stderr)

    def test_unwritable_place(self):
        # Holds for root too: a file is no folder.
        (self.dir / "file").write_text("")
        self.run_cli("convert", self.model, "-o", "file/o.safetensors", code=1)

    def test_force_overwrites(self):
        (self.dir / "taken.safetensors").write_bytes(b"not precious")
        self.run_cli("convert", self.model, "-o", "taken.safetensors", "--force")
        checkpoints.read(self.dir / "taken.safetensors")

    def test_quiet_and_json_keep_stdout_clean(self):
        self.assertEqual(self.run_cli("convert", self.model, "-o", "a.safetensors", "--quiet").stdout, "")
        result = self.run_cli("convert", self.model, "-o", "b.safetensors", "--json")
        json.loads(result.stdout)
        self.assertNotIn("\033", result.stdout + result.stderr)


class InterruptTest(CliTest):
    def interrupted_run(self, number, kill):
        """Starts a conversion and stops it once some tensors are done; None where it was too fast."""
        arguments = [PROGRAM, "convert", "big.safetensors", "-o", "out.safetensors", "--to", "int8", "-j", "1", "--rounding",
                     "stochastic"]
        process = subprocess.Popen(arguments, cwd=self.dir, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        journal = self.dir / "out.safetensors.partial.journal"
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if journal.read_text().count("\nrow ") > 2:
                    break
            except FileNotFoundError:
                pass
            time.sleep(0.0005)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
        if process.returncode == 0:
            for path in self.dir.glob("out.safetensors*"):
                path.unlink()
            return None
        self.assertEqual(process.returncode, -signal.SIGKILL if kill else 130, stderr)
        self.assertFalse((self.dir / "out.safetensors").exists())
        self.assertEqual(stdout, "")
        return stderr

    def check(self, number, kill=False):
        tensors = {}
        noise = os.urandom(1 << 20)
        for layer in range(48):  # bf16 with exponents near 1: any bytes with the top bits fixed
            raw = bytearray(noise * 4)
            raw[1::2] = bytes([0x3c]) * (len(raw) // 2)
            tensors[f"blocks.{layer}.q.weight"] = ("BF16", [1024, 2048], bytes(raw))
        checkpoints.write(self.dir / "big.safetensors", tensors)
        self.run_cli("convert", "big.safetensors", "-o", "whole.safetensors", "--to", "int8", "--rounding", "stochastic")
        for _ in range(10):
            stderr = self.interrupted_run(number, kill)
            if stderr is not None:
                break
        else:
            self.fail("ten runs were too fast to be interrupted")
        if not kill:
            self.assertIn("--resume", stderr)
        options = ["convert", "big.safetensors", "-o", "out.safetensors", "--rounding", "stochastic", "--resume"]
        self.assertIn("[resume-mismatch]", self.run_cli(*options, "--to", "int8_tensorwise", code=1).stderr)
        result = self.run_json(*options, "--to", "int8")["results"][0]
        self.assertGreater(result["rows_resumed"], 0)
        self.assertEqual(digest(self.dir / "out.safetensors"), digest(self.dir / "whole.safetensors"))
        self.assertEqual([path.name for path in self.dir.glob("*partial*")], [])

    def test_ctrl_c_then_resume(self):
        self.check(signal.SIGINT)

    def test_sigterm_then_resume(self):
        self.check(signal.SIGTERM)

    def test_kill_then_resume(self):
        self.check(signal.SIGKILL, kill=True)


class ProgressTest(CliTest):
    def test_bar_is_drawn_on_a_terminal_and_goes_to_stderr(self):
        tensors = {f"blocks.{i}.q.weight": ("BF16", [1024, 2048], bytes(4 << 20)) for i in range(32)}
        checkpoints.write(self.dir / "big.safetensors", tensors)

        def on_terminal(*options, env=None):
            master, slave = pty.openpty()
            process = subprocess.Popen([PROGRAM, "convert", "big.safetensors", "-o", "out.safetensors", "--force", "-j", "1",
                                        "--rounding", "stochastic", *options], cwd=self.dir, stdout=subprocess.PIPE,
                                       stderr=slave, env={**os.environ, "TERM": "xterm", **(env or {})})
            os.close(slave)
            drawn = b""
            while True:
                try:
                    chunk = os.read(master, 65536)
                except OSError:
                    break
                if not chunk:
                    break
                drawn += chunk
            os.close(master)
            stdout = process.communicate(timeout=60)[0]
            self.assertEqual(process.returncode, 0)
            self.assertNotIn(b"MB/s, ", stdout)
            self.assertNotIn(b"\r", stdout)
            return drawn.decode()

        bar = on_terminal()
        self.assertRegex(bar, r"\rconverting \[=* *\] +\d+% .* MB/s, .* left")
        self.assertEqual(on_terminal("--quiet"), "")
        warning = on_terminal("--quiet", "--to", "int8_blockwise")
        self.assertIn("\033[33mwarning", warning)
        plain = on_terminal("--quiet", "--to", "int8_blockwise", env={"NO_COLOR": "1"})
        self.assertIn("warning", plain)
        self.assertNotIn("\033[33m", plain)


class PlanTest(CliTest):
    def setUp(self):
        super().setUp()
        self.model = checkpoints.model(self.dir / "m.safetensors")

    def test_plan(self):
        text = self.run_cli("plan", self.model).stdout
        self.assertIn("architecture:", text)
        self.assertIn("float8_e4m3fn", text)
        self.assertIn("blocks.1.mlp.up", self.run_cli("plan", self.model, "--layers").stdout)
        plan = self.run_json("plan", self.model)
        for key in ["input", "output", "preset", "preset_reason", "bytes_in", "bytes_out", "peak_memory",
                    "seconds_estimate", "bits_per_weight", "notes", "warnings", "rows", "files", "recipe"]:
            self.assertIn(key, plan)
        self.assertEqual(len(plan["rows"]), 10)
        self.run_cli("plan", self.model, "--save", "p.json")
        self.assertEqual(json.loads((self.dir / "p.json").read_text()), plan)

    def test_template_loads_back_as_no_change(self):
        text = self.run_cli("plan", self.model, "--template").stdout
        self.assertIn("blocks.0.attn.q", json.loads(text))
        (self.dir / "t.json").write_text(text)
        self.run_cli("convert", self.model, "-o", "a.safetensors", "--layer-config", "t.json")
        self.run_cli("convert", self.model, "-o", "b.safetensors")
        a, b = checkpoints.read(self.dir / "a.safetensors")[0], checkpoints.read(self.dir / "b.safetensors")[0]
        self.assertEqual(a, b)


class InspectTest(CliTest):
    def test_plain_and_quantized(self):
        checkpoints.model(self.dir / "m.safetensors")
        text = self.run_cli("inspect", "m.safetensors").stdout
        self.assertIn("BF16", text)
        self.assertIn("title = a test", text)
        plain = self.run_json("inspect", "m.safetensors")
        self.assertAlmostEqual(plain["bits_per_weight"], 16)
        self.assertIsNone(plain["recipe"])
        self.assertEqual(plain["metadata"]["ss_seed"], "7")
        self.assertNotIn("layers", plain)
        self.run_cli("convert", "m.safetensors", "-o", "q.safetensors")
        quantized = self.run_json("inspect", "q.safetensors", "--layers")
        self.assertEqual(quantized["quantized_layers"], 4)
        self.assertTrue(quantized["comfyui_loads"])
        self.assertEqual(quantized["dialects"], ["header"])
        self.assertAlmostEqual(quantized["bits_per_weight"], 8 + 8 * 4 / (64 * 64))
        self.assertIn("float8_e4m3fn", str(quantized["recipe"]))
        self.assertEqual({layer["stored"] for layer in quantized["layers"] if layer["marker"]},
                         {share["label"] for share in quantized["storage"] if share["quantized"]})
        self.assertIn("blocks.1.attn.q", self.run_cli("inspect", "q.safetensors", "--layers").stdout)


class VerifyTest(CliTest):
    def codes(self, path, code):
        result = self.run_json("verify", path, code=code)
        return {finding["code"] for finding in result["files"][0]["findings"] if finding["severity"] == "error"}

    def test_sound_and_broken(self):
        checkpoints.model(self.dir / "m.safetensors")
        self.run_cli("convert", "m.safetensors", "-o", "q.safetensors")
        self.assertEqual(self.codes("q.safetensors", 0), set())
        tensors, metadata = checkpoints.read(self.dir / "q.safetensors")
        name = "blocks.0.attn.q.weight_scale"
        bad = {**tensors, name: ("F32", [], struct.pack("<f", float("nan")))}
        checkpoints.write(self.dir / "nan.safetensors", bad, metadata)
        self.assertIn("non-finite-scale", self.codes("nan.safetensors", 3))
        orphan = {**tensors, "nothing.weight_scale": ("F32", [], checkpoints.f32(1))}
        checkpoints.write(self.dir / "orphan.safetensors", orphan, metadata)
        self.assertIn("orphan-scale", self.codes("orphan.safetensors", 3))
        unmarked = {key: value for key, value in tensors.items() if not key.endswith("comfy_quant")}
        checkpoints.write(self.dir / "unmarked.safetensors", unmarked)
        self.assertIn("missing-marker", self.codes("unmarked.safetensors", 3))
        raw = (self.dir / "q.safetensors").read_bytes()
        (self.dir / "cut.safetensors").write_bytes(raw[:-1])
        self.assertIn("truncated-file", self.codes("cut.safetensors", 3))
        both = self.run_cli("verify", "q.safetensors", "orphan.safetensors", code=3).stdout
        self.assertIn("q.safetensors: sound", both)
        self.assertIn("orphan.safetensors: error: nothing.weight_scale", both)
        self.run_cli("verify", "missing.safetensors", code=1)

    def test_nan_code_is_found_unless_only_headers_are_read(self):
        checkpoints.model(self.dir / "m.safetensors")
        self.run_cli("convert", "m.safetensors", "-o", "q.safetensors")
        tensors, metadata = checkpoints.read(self.dir / "q.safetensors")
        dtype, shape, raw = tensors["blocks.1.mlp.up.weight"]
        tensors["blocks.1.mlp.up.weight"] = (dtype, shape, raw[:-1] + b"\x7f")
        checkpoints.write(self.dir / "nan.safetensors", tensors, metadata)
        self.assertEqual(self.codes("nan.safetensors", 3), {"non-finite-weight"})
        self.run_cli("verify", "nan.safetensors", "--header-only")


class RepairTest(CliTest):
    def test_legacy_file(self):
        checkpoints.legacy_fp8(self.dir / "old.safetensors")
        repairs = self.run_json("repair", "old.safetensors", "-o", "new.safetensors")
        self.assertTrue(repairs["written"])
        tensors, metadata = checkpoints.read(self.dir / "new.safetensors")
        old, _ = checkpoints.read(self.dir / "old.safetensors")
        self.assertEqual(set(tensors), {"blocks.0.q.weight", "blocks.0.q.weight_scale", "blocks.0.q.comfy_quant",
                                        "blocks.0.q.bias"})
        self.assertEqual(tensors["blocks.0.q.weight"], old["blocks.0.q.weight"])
        self.assertEqual(tensors["blocks.0.q.weight_scale"], ("F32", [], checkpoints.f32(0.5)))
        self.assertEqual(json.loads(tensors["blocks.0.q.comfy_quant"][2]), {"format": "float8_e4m3fn"})
        self.assertEqual(metadata["title"], "legacy")
        self.assertTrue(self.run_json("verify", "new.safetensors")["sound"])
        before = self.listing()
        self.assertFalse(self.run_json("repair", "new.safetensors", "-o", "again.safetensors")["written"])
        self.assertIn("nothing to repair", self.run_cli("repair", "new.safetensors", "-o", "again.safetensors").stdout)
        self.assertEqual(self.listing(), before)
        self.run_cli("repair", "old.safetensors", "-o", "new.safetensors", code=1)
        self.run_cli("repair", "old.safetensors", "-o", "old.safetensors", "--force", code=1)
        self.assertEqual(self.listing(), before)

    def test_what_cannot_be_mended(self):
        checkpoints.legacy_fp8(self.dir / "old.safetensors")
        tensors, metadata = checkpoints.read(self.dir / "old.safetensors")
        tensors["blocks.0.q.scale_weight"] = ("F32", [], struct.pack("<f", float("inf")))
        checkpoints.write(self.dir / "bad.safetensors", tensors, metadata)
        self.assertIn("[not-repairable]", self.run_cli("repair", "bad.safetensors", "-o", "x.safetensors", code=1).stderr)
        self.assertFalse((self.dir / "x.safetensors").exists())


class CompareTest(CliTest):
    def test_compare(self):
        checkpoints.model(self.dir / "m.safetensors")
        self.run_cli("convert", "m.safetensors", "-o", "q.safetensors", "--to", "int8")
        result = self.run_json("compare", "m.safetensors", "q.safetensors")
        errors = [layer["relative_error"] for layer in result["layers"]]
        self.assertEqual(len(errors), 4)
        self.assertEqual(errors, sorted(errors, reverse=True))
        self.assertTrue(all(0.001 < error < 0.02 for error in errors), errors)
        self.assertAlmostEqual(result["mean_relative_error"], sum(errors) / 4)
        self.assertEqual(result["worst_sqnr_db"], min(layer["sqnr_db"] for layer in result["layers"]))
        self.assertEqual(result["only_in_a"], [])
        same = self.run_json("compare", "m.safetensors", "m.safetensors")
        self.assertEqual((same["layers"], same["identical_tensors"], same["worst_sqnr_db"]), ([], 10, None))
        text = self.run_cli("compare", "m.safetensors", "q.safetensors", "--top", "1").stdout
        self.assertIn("... 3 more", text)


class EditTest(CliTest):
    def setUp(self):
        super().setUp()
        checkpoints.model(self.dir / "m.safetensors")
        self.run_cli("convert", "m.safetensors", "-o", "q.safetensors")

    def edit(self, *options):
        self.run_cli("edit", "q.safetensors", "-o", "e.safetensors", "--force", *options)
        self.run_cli("verify", "e.safetensors")
        return checkpoints.read(self.dir / "e.safetensors")

    def test_tensors_and_metadata(self):
        before, _ = checkpoints.read(self.dir / "q.safetensors")
        tensors, metadata = self.edit("--remove", r"^blocks\.0\.attn\.q\.weight$", "--rename", "^blocks=>layers",
                                      "--set-metadata", "author=x=y", "--remove-metadata", "ss_seed")
        self.assertFalse([name for name in tensors if name.startswith("blocks")])
        self.assertFalse([name for name in tensors if name.startswith("layers.0.attn.q.weight")])
        self.assertNotIn("layers.0.attn.q.comfy_quant", tensors)
        self.assertEqual(tensors["layers.1.attn.q.weight"], before["blocks.1.attn.q.weight"])
        self.assertEqual(metadata["author"], "x=y")
        self.assertNotIn("ss_seed", metadata)
        self.assertEqual(set(json.loads(metadata["_quantization_metadata"])["layers"]),
                         {"layers.0.mlp.up", "layers.1.attn.q", "layers.1.mlp.up"})

    def test_fields(self):
        tensors, metadata = self.edit("--layers", "attn", "--set-field", "full_precision_matrix_mult=true", "--set-field",
                                      "note=by hand")
        header = json.loads(metadata["_quantization_metadata"])["layers"]
        for layer, marker in header.items():
            self.assertEqual(marker, json.loads(tensors[f"{layer}.comfy_quant"][2]))
            self.assertEqual(marker.get("full_precision_matrix_mult"), True if "attn" in layer else None)
            self.assertEqual(marker.get("note"), "by hand" if "attn" in layer else None)
        self.run_cli("edit", "e.safetensors", "-o", "f.safetensors", "--remove-field", "note")
        tensors, _ = checkpoints.read(self.dir / "f.safetensors")
        self.assertNotIn("note", json.loads(tensors["blocks.0.attn.q.comfy_quant"][2]))

    def test_add_and_shard(self):
        checkpoints.write(self.dir / "extra.safetensors", {"vae.x": ("F32", [2], checkpoints.f32(1, 2))})
        tensors, _ = self.edit("--add", "extra.safetensors")
        self.assertEqual(tensors["vae.x"], ("F32", [2], checkpoints.f32(1, 2)))
        self.run_cli("edit", "q.safetensors", "-o", "s.safetensors", "--remove", "norm", "--max-shard-size", "8kB")
        self.assertTrue((self.dir / "s.safetensors.index.json").exists())

    def test_refusals(self):
        for code, options in [(1, ["--remove", "no such tensor"]), (1, ["--remove", "weight_scale$"]),
                              (1, ["--rename", r"\.weight$=>.kernel"]), (1, ["--remove-metadata", "nothing"]), (2, []),
                              (2, ["--remove-field", "format"]), (2, ["--set-metadata", "_quantization_metadata={}"]),
                              (2, ["--layers", "attn"]), (1, ["--add", "m.safetensors"])]:
            with self.subTest(options=options):
                self.run_cli("edit", "q.safetensors", "-o", "x.safetensors", *options, code=code)
                self.assertFalse((self.dir / "x.safetensors").exists())


class MachineTest(CliTest):
    def test_formats_and_presets(self):
        formats = self.run_json("formats")["formats"]
        text = self.run_cli("formats").stdout
        for entry in formats:
            self.assertIn(entry["name"], text)
        presets = self.run_json("presets")["presets"]
        self.assertGreater(len(presets), 5)
        one = self.run_json("presets", presets[0]["name"])
        self.assertEqual(one["name"], presets[0]["name"])
        self.assertGreater(len(one["generic"]), 0)
        self.run_cli("presets", presets[0]["name"])
        self.run_cli("presets")

    def test_doctor(self):
        before = self.listing()
        facts = self.run_json("doctor", ".")
        self.assertIn(facts["isa_in_use"], facts["isa_enabled"])
        self.assertGreater(facts["disk_write_mb_s"], 0)
        self.assertLessEqual(facts["disk_probe_bytes"], 256 << 20)
        self.assertEqual(self.listing(), before)
        result = self.run_cli("doctor", env={"MEZZOTINT_ISA": "scalar"}).stdout
        self.assertIn("scalar in use", result)
        self.run_cli("doctor", "missing-folder", code=1)

    def test_completions(self):
        for shell in ("bash", "zsh", "fish"):
            text = self.run_cli("completions", shell).stdout
            for word in LISTED + ["max-memory", "dry-run"]:
                self.assertIn(word, text)
            if shutil.which(shell):
                path = self.dir / f"completion.{shell}"
                path.write_text(text)
                subprocess.run([shell, "-n", path], check=True)
        script = self.run_cli("completions", "bash").stdout + """
COMP_WORDS=(mezzotint convert --dry); COMP_CWORD=2; _mezzotint; echo "${COMPREPLY[@]}"
COMP_WORDS=(mezzotint con); COMP_CWORD=1; _mezzotint; echo "${COMPREPLY[@]}"
"""
        result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        self.assertEqual(result.stdout.split(), ["--dry-run", "convert"])

    def test_man(self):
        self.run_cli("man", "--output", "pages")
        self.assertEqual(sorted(path.name for path in (self.dir / "pages").iterdir()),
                         sorted(["mezzotint.1"] + [f"mezzotint-{command}.1" for command in LISTED]))
        page = (self.dir / "pages" / "mezzotint-convert.1").read_text()
        self.assertIn(r"\-\-max\-memory", page)
        self.assertFalse(re.search(r"(?m)^\.[a-z]", page))


class DocsTest(CliTest):
    def test_every_option_is_documented(self):
        text = (pathlib.Path(__file__).parents[2] / "docs" / "cli.md").read_text()
        for command in LISTED:
            section = text.split(f"\n## {command}\n")
            self.assertEqual(len(section), 2, command)
            body = section[1].split("\n## ")[0]
            for option in re.findall(r"(?m)^ +(?:-\w,)?(--[a-z-]+)", self.run_cli(command, "--help").stdout):
                if option != "--help":
                    self.assertIn(f"`{option}", body, f"{command} {option}")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]] + sys.argv[2:])
