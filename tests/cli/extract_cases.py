"""extract, and what compare finds of adapters."""
import json
import math
import random
import struct

import checkpoints
from case import CliTest
from checkpoints import f32

ROWS, COLS = 24, 16


def floats(tensor):
    dtype, _, raw = tensor
    return struct.unpack(f"<{len(raw) // checkpoints.WIDTH[dtype]}{ {'F32': 'f', 'F16': 'e'}[dtype] }", raw)


class ExtractTest(CliTest):
    def setUp(self):
        super().setUp()
        rng = random.Random(3)
        draw = lambda count: [rng.gauss(0, 1) for _ in range(count)]  # noqa: E731
        self.w, self.u, self.v, self.bias = draw(ROWS * COLS), draw(ROWS), draw(COLS), draw(ROWS)
        tuned = [self.w[i] + 0.1 * self.u[i // COLS] * self.v[i % COLS] for i in range(ROWS * COLS)]
        for name, weight, bias in [("base", self.w, [0.0] * ROWS), ("tuned", tuned, self.bias)]:
            checkpoints.write(self.dir / f"{name}.safetensors", {
                "blocks.0.q.weight": ("F32", [ROWS, COLS], f32(*weight)),
                "blocks.0.q.bias": ("F32", [ROWS], f32(*bias)),
                "blocks.0.k.weight": ("F32", [ROWS, COLS], f32(*self.w))})

    def expect(self, path, strength, places=5):
        tensors, metadata = checkpoints.read(self.dir / path)
        up, down, alpha, bias = (floats(tensors[f"diffusion_model.blocks.0.q.{part}"])
                                 for part in ("lora_up.weight", "lora_down.weight", "alpha", "diff_b"))
        rank = tensors["diffusion_model.blocks.0.q.lora_down.weight"][1][0]
        for r in range(ROWS):
            for c in range(COLS):
                got = alpha[0] / rank * sum(up[r * rank + k] * down[k * COLS + c] for k in range(rank))
                self.assertAlmostEqual(got, strength * 0.1 * self.u[r] * self.v[c], places)
        for got, wanted in zip(bias, self.bias):
            self.assertAlmostEqual(got, strength * wanted, places)
        return json.loads(metadata["mezzotint"])["extraction"]

    def test_extracts(self):
        files = ("extract", "base.safetensors", "tuned.safetensors", "-o", "lora.safetensors", "-f", "--dtype", "fp32")
        result = self.run_json(*files, "--rank", "2")
        self.assertEqual((result["written"], result["identical"], len(result["tensors"])), (2, 1, 2))
        self.assertEqual(result["bytes"], (self.dir / "lora.safetensors").stat().st_size)
        made = self.expect("lora.safetensors", 1)
        self.assertEqual(made["energy"], result["energy"])
        layers = {tensor["name"]: tensor for tensor in result["tensors"]}
        layer = layers["blocks.0.q"]
        self.assertEqual((layer["rank"], layer["shape"], layers["blocks.0.q.bias"]["rank"]), (2, [ROWS, COLS], 0))
        self.assertAlmostEqual(layer["energy"], 1, 6)
        norm = lambda values: math.sqrt(sum(x * x for x in values))  # noqa: E731
        tuned = [self.w[i] + 0.1 * self.u[i // COLS] * self.v[i % COLS] for i in range(ROWS * COLS)]
        self.assertAlmostEqual(layer["change"], 0.1 * norm(self.u) * norm(self.v) / norm(tuned), 5)
        self.run_json(*files, "--rank", "1", "--alpha", "8", "--strength", "-0.5")
        self.expect("lora.safetensors", -0.5)
        self.run_cli("extract", "base.safetensors", "tuned.safetensors", "-o", "half.safetensors")
        self.expect("half.safetensors", 1, 2)
        text = self.run_cli(*files, "--top", "1").stdout
        self.assertIn("... 1 more", text)
        self.assertIn("2 of 2 tensors", text)

    def test_it_can_be_merged(self):
        self.run_cli("extract", "base.safetensors", "tuned.safetensors", "-o", "lora.safetensors", "--dtype", "fp32")
        self.run_cli("merge", "base.safetensors", "-o", "out.safetensors", "--lora", "lora.safetensors", "--strict")
        self.assertLess(self.run_json("compare", "tuned.safetensors", "out.safetensors")["relative_error"], 1e-6)
        self.assertGreater(self.run_json("compare", "tuned.safetensors", "base.safetensors")["relative_error"], 1e-2)

    def test_a_residual_is_a_correction(self):
        self.run_cli("convert", "base.safetensors", "-o", "q.safetensors", "--to", "int8_row", "--preset", "none")
        rank = ("--rank", "4")
        corrected = self.run_json("correct", "base.safetensors", "q.safetensors", "-o", "a.safetensors", *rank)
        residual = self.run_json("extract", "--residual", "base.safetensors", "q.safetensors", "-o", "b.safetensors", *rank)
        self.assertEqual(residual["written"], 2)
        self.assertEqual({**residual, "output": ""}, {**corrected, "output": ""})
        self.assertEqual((self.dir / "a.safetensors").read_bytes(), (self.dir / "b.safetensors").read_bytes())

    def test_usage(self):
        files = ("extract", "base.safetensors", "tuned.safetensors", "-o", "x.safetensors")
        self.run_cli(*files[:3], code=2)
        for wrong in [("--dtype", "int8"), ("--rank", "0"), ("--rank", "many"), ("--calibration", "c.safetensors"),
                      ("--residual", "--alpha", "1"), ("--residual", "--strength", "1")]:
            self.run_cli(*files, *wrong, code=2)
        self.assertIn("bad-option", self.run_cli(*files, "--strength", "0", code=2).stderr)
        same = self.run_cli("extract", "base.safetensors", "base.safetensors", "-o", "x.safetensors").stdout
        self.assertIn("nothing to extract", same)
        error = self.run_cli(*files[:3], "-o", "tuned.safetensors", "-f", code=1).stderr
        self.assertIn("[output-is-input]", error)
        self.assertNotIn("x.safetensors", self.listing())


class FidelityTest(CliTest):
    def setUp(self):
        super().setUp()
        rng = random.Random(11)
        draw = lambda count, size: [rng.gauss(0, size) for _ in range(count)]  # noqa: E731
        self.w, up, down = draw(64 * 64, 1), draw(64 * 4, 0.08), draw(4 * 64, 0.08)
        checkpoints.write(self.dir / "base.safetensors", {
            "blocks.0.q.weight": ("F32", [64, 64], f32(*self.w)), "blocks.0.k.weight": ("F32", [64, 64], f32(*self.w))})
        checkpoints.write(self.dir / "lora.safetensors", {
            "blocks.0.q.lora_B.weight": ("F32", [64, 4], f32(*up)), "blocks.0.q.lora_A.weight": ("F32", [4, 64], f32(*down))})
        self.delta = [sum(up[r * 4 + k] * down[k * 64 + c] for k in range(4)) for r in range(64) for c in range(64)]

    def compare(self, *arguments):
        return self.run_json("compare", "base.safetensors", "out.safetensors", *arguments)["adapters"]

    def test_gain_and_residual(self):
        for factor in [1, 0.25]:
            values = [w + factor * d for w, d in zip(self.w, self.delta)]
            checkpoints.write(self.dir / "out.safetensors", {
                "blocks.0.q.weight": ("F32", [64, 64], f32(*values)), "blocks.0.k.weight": ("F32", [64, 64], f32(*self.w))})
            result = self.compare("--lora", "lora.safetensors", "--html", "report.html")
            self.assertEqual(len(result["tensors"]), 1)
            tensor = result["tensors"][0]
            self.assertAlmostEqual(tensor["gain"], factor, 4)
            self.assertAlmostEqual(tensor["residual"], 1 - factor, 4)
            norm = lambda xs: math.sqrt(sum(x * x for x in xs))  # noqa: E731
            self.assertAlmostEqual(tensor["delta"], norm(self.delta) / norm(self.w), 6)
            self.assertEqual(result["vanished"], [] if factor == 1 else ["blocks.0.q"])
            text = self.run_cli("compare", "base.safetensors", "out.safetensors", "--lora", "lora.safetensors").stdout
            page = (self.dir / "report.html").read_text()
            for where in [text, result["advice"], page]:
                self.assertEqual("bypass" in where, factor != 1)
            self.assertIn(f"gain {factor:.3f}", page)
        self.assertAlmostEqual(self.compare("--lora", "lora.safetensors:0.25")["gain"], 1, 4)
        self.assertAlmostEqual(self.compare("--lora", "lora.safetensors:0.5")["gain"], 0.5, 4)

    def test_what_merge_wrote(self):
        two = ["--lora", "lora.safetensors:0.5", "--lora", "lora.safetensors:2"]
        self.run_cli("merge", "base.safetensors", "-o", "out.safetensors", *two)
        self.assertAlmostEqual(self.compare(*two)["gain"], 1, 5)
        self.assertAlmostEqual(self.compare(*two, "--no-dampen")["gain"], 2.3 / 2.5, 5)
        self.run_cli("merge", "base.safetensors", "-o", "out.safetensors", *two, "--no-dampen", "-f")
        self.assertAlmostEqual(self.compare(*two, "--no-dampen")["gain"], 1, 5)
        self.assertNotIn("adapters", self.run_json("compare", "base.safetensors", "out.safetensors"))

    def test_usage(self):
        files = ("compare", "base.safetensors", "base.safetensors")
        self.run_cli(*files, "--no-dampen", code=2)
        self.run_cli(*files, "--lora", "none.safetensors", code=1)
        tensors, _ = checkpoints.read(self.dir / "lora.safetensors")
        more = {name.replace("blocks.0", "blocks.7"): tensor for name, tensor in tensors.items()}
        checkpoints.write(self.dir / "both.safetensors", {**tensors, **more})
        self.assertIn("blocks.7.q", self.run_cli(*files, "--lora", "both.safetensors").stderr)
        error = self.run_cli(*files, "--lora", "both.safetensors", "--strict", code=1).stderr
        self.assertIn("unmatched-adapter-keys", error)
