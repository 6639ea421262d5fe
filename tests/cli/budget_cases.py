"""Size budgets: formats chosen layer by layer."""
import json
import os

import checkpoints
from case import CliTest


class BudgetTest(CliTest):
    def setUp(self):
        super().setUp()
        self.model = checkpoints.model(self.dir / "m_bf16.safetensors", blocks=4)

    def sizes(self):
        return [self.run_json("plan", self.model, "--to", name)["bytes_out"] for name in ("nvfp4", "bf16")]

    def test_the_output_fits_the_target_and_replays(self):
        least, most = self.sizes()
        target = (least + most) // 2
        result = self.run_json("convert", self.model, "--target-size", target)["results"][0]
        output = self.dir / "m_mixed.safetensors"
        self.assertEqual(os.path.getsize(output), result["bytes_out"])
        self.assertLessEqual(result["bytes_out"], target)
        budget = result["budget"]
        self.assertEqual(budget["bytes"], result["bytes_out"])
        self.assertEqual(len(budget["layers"]), 8)
        self.assertGreater(len({layer["format"] for layer in budget["layers"]}), 1)
        points = budget["frontier"]
        self.assertEqual([point["bytes"] for point in points if point["chosen"]], [result["bytes_out"]])
        for smaller, larger in zip(points, points[1:]):
            self.assertLess(smaller["bytes"], larger["bytes"])
            self.assertGreater(smaller["error"], larger["error"])
        self.run_cli("verify", output)
        self.run_cli("convert", self.model, "--recipe", output, "-o", "again.safetensors")
        self.assertEqual((self.dir / "again.safetensors").read_bytes(), output.read_bytes())

    def test_plan_shows_a_frontier_and_saves_a_recipe(self):
        least, most = self.sizes()
        target = least + (most - least) // 3
        text = self.run_cli("plan", self.model, "--target-size", target, "--save-recipe", "r.json",
                            "--save", "p.json").stdout
        self.assertRegex(text, r"(?m)^budget: \d+ bytes, ")
        self.assertRegex(text, r"(?m)^->  ")
        self.assertNotIn("layer config 'blocks", text, "one line for all layers of a kind")
        saved = json.loads((self.dir / "p.json").read_text())
        self.assertEqual(saved["budget"]["bytes"], saved["bytes_out"])
        plain = self.run_json("plan", self.model, "--recipe", "r.json")
        self.assertEqual(plain["bytes_out"], saved["bytes_out"])
        self.assertNotIn("budget", plain)
        dry = self.run_json("convert", self.model, "--dry-run", "--target-size", target)["plans"][0]
        self.assertEqual(dry["budget"], saved["budget"])

    def test_bits_per_weight_and_errors(self):
        plan = self.run_json("plan", self.model, "--target-bpw", "6.5", "--formats",
                             "nvfp4,int8_tensorwise:scaling=row,convrot=true")
        self.assertLessEqual(plan["bits_per_weight"], 6.5)
        self.assertEqual(plan["recipe"]["to"], "nvfp4")
        strict = self.run_json("plan", self.model, "--max-error", "0.01")
        self.assertLessEqual(strict["budget"]["error"], 0.01)
        loose = self.run_json("plan", self.model, "--max-error", "0.05")
        self.assertLess(loose["bytes_out"], strict["bytes_out"])

    def test_raises_single_layers(self):
        tensors, _ = checkpoints.read(self.model)
        spoilt = bytearray(tensors["blocks.1.mlp.up.weight"][2])
        spoilt[:2] = checkpoints.bf16([20.0])  # a thousand times what the others are
        tensors["blocks.1.mlp.up.weight"] = ("BF16", [64, 64], bytes(spoilt))
        checkpoints.write(self.model, tensors)
        options = ["--to", "int8_tensor", "--promote-above", "0.05"]
        text = self.run_cli("convert", self.model, "-o", "out.safetensors", *options).stdout
        self.assertRegex(text, r"(?m)^raised: blocks\.1\.mlp\.up from int8_tensorwise ")
        self.assertEqual(text.count("raised:"), 1)
        raised = [layer for layer in self.run_json("plan", self.model, *options)["budget"]["layers"]
                  if "raised_from" in layer]
        self.assertEqual([layer["name"] for layer in raised], ["blocks.1.mlp.up"])
        self.assertGreater(raised[0]["raised_error"], 0.05)
        self.assertLessEqual(raised[0]["relative_error"], 0.05)

    def test_says_what_is_wrong(self):
        least, _ = self.sizes()
        small = self.run_cli("convert", self.model, "--target-size", least - 1, code=1)
        self.assertIn(f"at least {least} bytes", small.stderr)
        self.assertIn("[budget-too-small]", small.stderr)
        self.assertEqual(sorted(os.listdir(self.dir)), ["m_bf16.safetensors"])
        self.run_cli("convert", self.model, "--max-error", "0.001", "--formats", "nvfp4", code=1)
        for wrong in (["--target-size", "1M", "--target-bpw", "6"], ["--to", "int8", "--target-bpw", "6"],
                      ["--formats", "nvfp4"], ["--target-size", "lots"]):
            self.run_cli("convert", self.model, *wrong, code=2)
