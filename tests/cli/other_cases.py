"""Everything but convert and plan."""
import json
import pathlib
import re
import shlex
import shutil
import struct
import subprocess

import case
import checkpoints
from case import HIDDEN, LISTED, CliTest


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
                          ("recipes", "no_such_recipe"), ("convert", "a", "--recipe", "no_such_recipe"),
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
                               ("-lm", "--max-memory"), ("--wan", "--preset"),
                               ("--quip-hadamard", "--optimizer quip"), ("--report-quality", "mezzotint compare"),
                               ("-i", "without an option"), ("--input", "without an option"),
                               ("--manual_seed=7", "--seed"), ("--nvfp4", "--to nvfp4")]:
            with self.subTest(option=option):
                stderr = self.run_cli("convert", "a.safetensors", option, code=2).stderr
                self.assertIn("has no option", stderr)
                self.assertIn(answer, stderr)


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
        self.assertEqual(quantized["dialects"], ["comfy_quant", "header"])
        self.assertAlmostEqual(quantized["bits_per_weight"], 8 + 8 * 4 / (64 * 64))
        self.assertIn("float8_e4m3fn", str(quantized["recipe"]))
        self.assertEqual(quantized["command"],
                         "mezzotint convert INPUT -o q.safetensors --to float8_e4m3fn")
        self.assertIsNone(plain["command"])
        self.assertIn("made by: " + quantized["command"], self.run_cli("inspect", "q.safetensors").stdout)
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

    def test_report(self):
        checkpoints.model(self.dir / "m.safetensors")
        self.run_cli("convert", "m.safetensors", "-o", "q.safetensors", "--to", "int8", "--exclude", "blocks.0.attn")
        result = self.run_json("compare", "m.safetensors", "q.safetensors", "--html", "report.html")
        page = (self.dir / "report.html").read_text()
        report = json.loads((self.dir / "report.json").read_text())
        self.assertEqual(report["relative_error"], result["relative_error"])
        self.assertEqual(report["bytes_out"], (self.dir / "q.safetensors").stat().st_size)
        errors = {layer["name"]: layer["relative_error"] for layer in report["layers"] if layer["fate"] == "measured"}
        self.assertEqual(errors, {layer["name"]: layer["relative_error"] for layer in result["layers"]})
        worst = [layer["name"] for layer in report["findings"]["worst"]]
        self.assertEqual(worst, [layer["name"] for layer in result["layers"]][:3])
        for text in worst + [mend["option"].split()[0] for mend in report["findings"]["mends"]]:
            self.assertIn(text, page.split("block by block")[0])
        # The command in it makes the same file again.
        before = (self.dir / "q.safetensors").read_bytes()
        self.run_cli(*shlex.split(report["command"])[1:], "--force")
        self.assertEqual((self.dir / "q.safetensors").read_bytes(), before)
        self.run_cli("compare", "m.safetensors", "q.safetensors", "--html", "no/such/folder.html", code=1)


class CorrectTest(CliTest):
    def test_correct(self):
        checkpoints.model(self.dir / "m.safetensors")
        self.run_cli("convert", "m.safetensors", "-o", "q.safetensors", "--to", "int8")
        result = self.run_json("correct", "m.safetensors", "q.safetensors", "-o", "lora.safetensors", "--rank", "8")
        self.assertEqual((result["written"], len(result["layers"])), (4, 4))
        self.assertEqual(result["bytes"], (self.dir / "lora.safetensors").stat().st_size)
        before = [layer["weight_error_before"] for layer in result["layers"]]
        self.assertEqual(before, sorted(before, reverse=True))
        compared = self.run_json("compare", "m.safetensors", "q.safetensors")
        self.assertAlmostEqual(result["weight_error_before"], compared["relative_error"], 6)
        tensors, metadata = checkpoints.read(self.dir / "lora.safetensors")
        self.assertEqual(json.loads(metadata["mezzotint"])["correction"]["rank"], 8)
        self.assertEqual(len(tensors), 12)
        for layer in result["layers"]:
            self.assertLess(layer["weight_error_after"], layer["weight_error_before"])
            self.assertIsNone(layer["output_error_before"])
            self.assertEqual(layer["key"], "diffusion_model." + layer["name"])
            rows, cols = layer["shape"]
            self.assertEqual(tensors[layer["key"] + ".lora_up.weight"][:2], ("F16", [rows, 8]))
            self.assertEqual(tensors[layer["key"] + ".lora_down.weight"][:2], ("F16", [8, cols]))
        text = self.run_cli("correct", "m.safetensors", "q.safetensors", "-o", "lora.safetensors", "--force").stdout
        self.assertIn("corrects 4 of 4 layers", text)
        self.assertIn("Bypass", text)
        wide = ("--dtype", "fp32", "--top", "1", "-o", "wide.safetensors")
        self.assertIn("... 3 more", self.run_cli("correct", "m.safetensors", "q.safetensors", *wide).stdout)
        self.assertEqual(checkpoints.read(self.dir / "wide.safetensors")[0]["diffusion_model.blocks.0.attn.q.alpha"][0],
                         "F32")

    def test_nothing_to_correct(self):
        checkpoints.model(self.dir / "m.safetensors")
        self.assertIn("nothing to correct", self.run_cli("correct", "m.safetensors", "m.safetensors", "-o", "x").stdout)
        self.assertFalse((self.dir / "x").exists())
        self.run_cli("correct", "m.safetensors", "m.safetensors", "-o", "x", "--dtype", "int8", code=2)
        self.run_cli("correct", "m.safetensors", "m.safetensors", "-o", "x", "--rank", "0", code=2)
        stderr = self.run_cli("correct", "m.safetensors", "m.safetensors", "-o", "m.safetensors", "-f", code=1).stderr
        self.assertIn("[output-is-input]", stderr)


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
    def test_recipes(self):
        recipes = self.run_json("recipes")["recipes"]
        self.assertGreater(len(recipes), 30)
        name = recipes[0]["name"]
        text = self.run_cli("recipes", name).stdout
        self.assertEqual(json.loads(text)["name"], name)
        self.assertEqual(json.loads(text)["description"], recipes[0]["description"])
        self.assertIn(recipes[0]["description"], self.run_cli("recipes").stdout)
        self.assertIn("Did you mean 'ctq-wan-fp8'?", self.run_cli("recipes", "ctq-wan-fp9", code=2).stderr)

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

    def test_full_disk_behind_stdout(self):
        with open("/dev/full", "w") as full:
            result = subprocess.run([case.PROGRAM, "formats", "--json"], stdout=full, stderr=subprocess.PIPE, text=True)
        self.assertEqual(result.returncode, 1)
        self.assertIn("mezzotint: error:", result.stderr)

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
