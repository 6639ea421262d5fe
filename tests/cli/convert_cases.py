"""convert and plan."""
import json
import os
import pathlib
import pty
import resource
import shlex
import shutil
import signal
import subprocess
import time

import case
import checkpoints
from case import CliTest, digest


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
                if not entry["writable"]:
                    refused = self.run_cli("convert", self.model, "-o", target, "--to", entry["name"], code=2)
                    self.assertIn(entry["nearest"], refused.stderr)
                    self.assertFalse(os.path.exists(self.dir / target))
                    continue
                result = self.run_json("convert", self.model, "-o", target, "--to", entry["name"])["results"][0]
                self.assertGreater(result["bytes_out"], 0)
                self.assertEqual(result["bytes_out"], os.path.getsize(self.dir / target))
                self.assertTrue(self.run_json("verify", target, "--any-runtime")["sound"])
                # One layer that ComfyUI does not know aborts its whole load.
                self.run_cli("verify", target, code=0 if entry["comfyui"] else 3)
                self.run_cli("convert", target, "-o", f"back_{target}", "--to", "bf16")
                back, metadata = checkpoints.read(self.dir / f"back_{target}")
                self.assertEqual(back["blocks.0.attn.q.weight"][0], "BF16")
                self.assertFalse([name for name in back if "scale" in name or "comfy_quant" in name])
                self.assertNotIn("_quantization_metadata", metadata)
                if not entry["comfyui"] and entry["quantized"]:
                    warning = self.run_cli("convert", self.model, "--dry-run", "--to", entry["name"]).stderr
                    self.assertIn("ComfyUI cannot load", warning)
                    self.assertIn(entry["nearest"], warning)
                    self.assertIn("ComfyUI cannot load", str(result["warnings"]))

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

    def header(self, name):
        return json.loads(checkpoints.read(self.dir / name)[1]["mezzotint"])

    def test_named_recipes(self):
        named = ["convert", self.model, "--recipe", "ctq-wan-fp8"]
        self.run_cli(*named, "-o", "a.safetensors")
        recipe = self.header("a.safetensors")["recipe"]
        self.assertEqual((recipe["name"], recipe["revision"]), ("ctq-wan-fp8", 1))
        self.assertNotIn("modified", recipe)
        self.run_cli(*named, "-o", "b.safetensors", "--to", "int8", "--preset", "none")
        recipe = self.header("b.safetensors")["recipe"]
        self.assertEqual((recipe["name"], recipe["modified"], recipe["to"]), ("ctq-wan-fp8", ["to"], "int8"))
        # What `inspect` says makes every file again, header and all.
        for name in ["a.safetensors", "b.safetensors"]:
            command = shlex.split(self.run_json("inspect", name)["command"])
            self.assertEqual(command[:5], ["mezzotint", "convert", "INPUT", "-o", name])
            self.assertIn("ctq-wan-fp8", command)
            self.run_cli("convert", self.model, "-o", "again.safetensors", "--force", *command[5:])
            self.assertEqual(digest(self.dir / name), digest(self.dir / "again.safetensors"))
        # A file wins over a recipe of that name, and the printed recipe is one.
        (self.dir / "ctq-wan-fp8").write_text('{"version": 1, "name": "mine", "to": "bf16"}')
        self.run_cli(*named, "-o", "c.safetensors")
        self.assertEqual(self.header("c.safetensors")["recipe"]["name"], "mine")
        (self.dir / "saved.json").write_text(self.run_cli("recipes", "ctq-wan-fp8").stdout)
        self.run_cli("convert", self.model, "--recipe", "saved.json", "-o", "d.safetensors")
        self.assertEqual(digest(self.dir / "a.safetensors"), digest(self.dir / "d.safetensors"))
        self.run_cli("convert", self.model, "--recipe", "folder/ctq-wan-fp8", code=1)

    def test_old_headers(self):
        """Files of versions that had two entries."""
        self.run_cli("convert", self.model, "-o", "new.safetensors", "--to", "int8", "--exclude", "mlp")
        tensors, metadata = checkpoints.read(self.dir / "new.safetensors")
        origin = json.loads(metadata.pop("mezzotint"))
        metadata.update({"mezzotint_recipe": json.dumps(origin["recipe"]), "mezzotint_version": "0.0.1"})
        checkpoints.write(self.dir / "old.safetensors", tensors, metadata)
        self.run_cli("convert", self.model, "-o", "again.safetensors", "--recipe", "old.safetensors")
        self.assertEqual(digest(self.dir / "new.safetensors"), digest(self.dir / "again.safetensors"))
        self.assertIn("--to int8 --exclude mlp", self.run_json("inspect", "old.safetensors")["command"])
        self.run_cli("convert", "old.safetensors", "-o", "third.safetensors", "--to", "bf16")
        left = [key for key in checkpoints.read(self.dir / "third.safetensors")[1] if key.startswith("mezzotint")]
        self.assertEqual(left, ["mezzotint"])

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

    def test_unwritable_folder(self):
        # Root may write anywhere: the program runs as nobody then, from a place that nobody can reach.
        program = shutil.copy(case.PROGRAM, self.dir / "mezzotint")
        (self.dir / "closed").mkdir()
        for path in (self.dir / "closed", self.dir):
            path.chmod(0o555)
        try:
            result = subprocess.run([program, "convert", self.model, "-o", "closed/o.safetensors"], cwd=self.dir,
                                    capture_output=True, text=True, **({"user": 65534} if os.geteuid() == 0 else {}))
        finally:
            self.dir.chmod(0o755)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("[folder-not-writable]", result.stderr)
        self.assertEqual(list((self.dir / "closed").iterdir()), [])

    def test_unwritable_place(self):
        # Holds for root too: a file is no folder.
        (self.dir / "file").write_text("")
        self.run_cli("convert", self.model, "-o", "file/o.safetensors", code=1)

    def test_file_size_limit_is_an_error_that_resume_gets_over(self):
        checkpoints.model(self.dir / "wide.safetensors", blocks=4, size=256)
        self.run_cli("convert", "wide.safetensors", "-o", "whole.safetensors", "--to", "fp32")
        limit = os.path.getsize(self.dir / "whole.safetensors") // 2
        result = subprocess.run(
            [case.PROGRAM, "convert", "wide.safetensors", "-o", "out.safetensors", "--to", "fp32"], cwd=self.dir,
            capture_output=True, text=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("[file-too-large]", result.stderr)
        self.assertFalse((self.dir / "out.safetensors").exists())
        self.run_cli("convert", "wide.safetensors", "-o", "out.safetensors", "--to", "fp32", "--resume")
        self.assertEqual(digest(self.dir / "out.safetensors"), digest(self.dir / "whole.safetensors"))

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
        arguments = [case.PROGRAM, "convert", "big.safetensors", "-o", "out.safetensors", "--to", "int8", "-j", "1", "--rounding",
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
            try:
                master, slave = pty.openpty()
            except OSError as error:  # a bare chroot has no /dev/pts
                self.skipTest(f"no terminal to be had: {error}")
            process = subprocess.Popen([case.PROGRAM, "convert", "big.safetensors", "-o", "out.safetensors", "--force", "-j", "1",
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
