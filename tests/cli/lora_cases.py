"""convert and plan with adapters that are not merged."""
import json
import struct

import checkpoints
from adapter_case import COLS, RANK, ROWS, AdapterTest
from checkpoints import f32


class LoraTest(AdapterTest):
    def setUp(self):
        super().setUp()
        self.write_lora("other.safetensors", "blocks.0.k")
        self.convert = ["convert", "base.safetensors", "--to", "float8_e4m3fn", "--preset", "none", "-f", "-o"]

    def scale(self, *options, layer="q"):
        self.run_cli(*self.convert, "out.safetensors", *options)
        return struct.unpack("<f", checkpoints.read(self.dir / "out.safetensors")[0][f"blocks.0.{layer}.weight_scale"][2])[0]

    def wanted(self, *strengths):
        """The largest magnitude of the weights with the adapter at any of these strengths, over 448."""
        deltas = [sum(self.up[r * RANK + k] * self.down[k * COLS + c] for k in range(RANK))
                  for r in range(ROWS) for c in range(COLS)]
        return max(abs(w + s * d) for s in (0, *strengths) for w, d in zip(self.w, deltas)) / 448

    def test_strengths_belong_to_the_adapter_in_front(self):
        one = "lora.safetensors"
        for options, strengths in [((), ()), (("--lora", one), (1,)), (("--lora", f"{one}:3"), (3,)),
                                   (("--lora", one, "--lora-strength", "2"), (2,)),
                                   (("--lora-strength=2", "--lora", one), None),
                                   (("--lora", one, "--lora-strength=-2", "--lora", one), (-1, -2, 1)),
                                   (("--lora", one, "--lora", one, "--lora-strength", "-2"), (-1, -2, 1)),
                                   (("--lora", one, "--lora-strength", "2", "--lora-strength", "3"), None),
                                   (("--lora", one, "--lora-strength", "much"), None)]:
            with self.subTest(options=options):
                if strengths is None:
                    self.run_cli(*self.convert, "out.safetensors", *options, code=2)
                    continue
                self.assertAlmostEqual(self.scale(*options) / self.wanted(*strengths), 1, 5)
        self.assertGreater(self.wanted(2), 1.01 * self.wanted(1))
        self.assertNotAlmostEqual(self.wanted(1) / self.wanted(), 1, 3)

    def test_nothing_is_merged(self):
        self.run_cli(*self.convert, "plain.safetensors")
        self.run_cli(*self.convert, "out.safetensors", "--lora", "lora.safetensors", "--lora-strength", "2")
        plain, _ = checkpoints.read(self.dir / "plain.safetensors")
        out, metadata = checkpoints.read(self.dir / "out.safetensors")
        self.assertEqual(list(out), list(plain))
        for name in plain:
            if not name.startswith("blocks.0.q"):
                self.assertEqual(out[name], plain[name])
        self.run_cli("verify", "out.safetensors")
        recipe = json.loads(metadata["mezzotint"])["recipe"]
        self.assertEqual(recipe["lora"], [{"file": "lora.safetensors", "strength": 2.0}])
        self.run_cli("convert", "base.safetensors", "-o", "again.safetensors", "--recipe", "out.safetensors")
        self.assertEqual((self.dir / "again.safetensors").read_bytes(), (self.dir / "out.safetensors").read_bytes())
        self.run_cli("convert", "out.safetensors", "-o", "values.safetensors", "--to", "fp32")
        values = struct.unpack(f"<{ROWS * COLS}f", checkpoints.read(self.dir / "values.safetensors")[0]["blocks.0.q.weight"][2])
        step = struct.unpack("<f", out["blocks.0.q.weight_scale"][2])[0]
        for w, got in zip(self.w, values):
            self.assertLessEqual(abs(w - got), max(abs(w) / 16, step * 2**-10) * 1.0001)

    def test_rounding_spares_inputs(self):
        self.run_cli(*self.convert, "plain.safetensors")
        report = "report.html"
        self.run_cli(*self.convert, "out.safetensors", "--calibration-lora", "lora.safetensors", "--calibration-lora",
                     "other.safetensors:0.5", "--report", report)
        plain, _ = checkpoints.read(self.dir / "plain.safetensors")
        out, metadata = checkpoints.read(self.dir / "out.safetensors")
        for layer in "qk":
            self.assertNotEqual(out[f"blocks.0.{layer}.weight"], plain[f"blocks.0.{layer}.weight"])
            self.assertEqual(out[f"blocks.0.{layer}.weight_scale"], plain[f"blocks.0.{layer}.weight_scale"])
        recipe = json.loads(metadata["mezzotint"])["recipe"]
        self.assertEqual(recipe["calibration_lora"], [{"file": "lora.safetensors", "strength": 1.0},
                                                      {"file": "other.safetensors", "strength": 0.5}])
        text = json.dumps(json.loads((self.dir / "report.json").read_text()))
        self.assertIn("--calibration-lora other.safetensors:0.5", text)
        self.assertIn("rounding spares the inputs of adapters", text)
        rows = self.run_json("plan", "base.safetensors", "--to", "nvfp4", "--preset", "none", "--calibration-lora",
                             "lora.safetensors")["rows"]
        self.assertEqual([row["input_adapters"] for row in rows if "input_adapters" in row], [1])
        for options in [("--effort", "0"), ("--optimizer", "search"), ("--rounding", "stochastic"), ("--to", "bf16")]:
            self.run_cli(*self.convert, "o.safetensors", "--calibration-lora", "lora.safetensors", *options, code=2)

    def test_size_budgets(self):
        model = checkpoints.model(self.dir / "m.safetensors", blocks=4)
        shape = checkpoints.read(model)[0]["blocks.0.attn.q.weight"][1]
        checkpoints.write(self.dir / "lora.safetensors", {
            "blocks.0.attn.q.lora_B.weight": ("F32", [shape[0], 1], f32(*[8.0] * shape[0])),
            "blocks.0.attn.q.lora_A.weight": ("F32", [1, shape[1]], f32(*[1.0] * shape[1]))})
        sizes = [self.run_json("plan", model, "--to", name)["bytes_out"] for name in ("nvfp4", "bf16")]
        for share in (0.1, 0.5, 1.1):
            target = int(sizes[0] + share * (sizes[1] - sizes[0]))
            options = ["--target-size", target, "--lora", "lora.safetensors", "--calibration-lora", "lora.safetensors"]
            self.run_cli("convert", model, "-o", "out.safetensors", "-f", *options)
            self.assertLessEqual((self.dir / "out.safetensors").stat().st_size, target)
            tensors, metadata = checkpoints.read(self.dir / "out.safetensors")
            self.assertEqual(len(json.loads(metadata["mezzotint"])["recipe"]["lora"]), 1)
        warnings = self.run_cli("plan", model, *options).stderr
        self.assertIn("`--lora` changes nothing", warnings)

    def test_what_makes_no_sense(self):
        run = lambda *options, code=1: self.run_cli(*self.convert, "o.safetensors", *options, code=code).stderr  # noqa: E731
        self.assertIn("adapters", run("--strict", code=2))
        self.assertIn("No layer that the adapter changes", run("--lora", "lora.safetensors", "--exclude", "q", code=2))
        self.write_lora("stray.safetensors", "blocks.7.q")
        for option in ["--lora", "--calibration-lora"]:
            self.assertIn("adapter-unrelated", run(option, "stray.safetensors"))
        tensors, _ = checkpoints.read(self.dir / "lora.safetensors")
        more, _ = checkpoints.read(self.dir / "stray.safetensors")
        checkpoints.write(self.dir / "both.safetensors", {**tensors, **more})
        for option in ["--lora", "--calibration-lora", "--merge-lora"]:
            self.assertIn("blocks.7.q", run(option, "both.safetensors", code=0))
            self.assertIn("unmatched-adapter-keys", run(option, "both.safetensors", "--strict"))
        self.assertIn("output-is-input", self.run_cli(*self.convert, "lora.safetensors", "--lora", "lora.safetensors",
                                                      code=1).stderr)

