"""convert and plan with --calibration."""
import json
import struct

import checkpoints
from case import CliTest


class CalibrationTest(CliTest):
    def setUp(self):
        super().setUp()
        self.model = checkpoints.model(self.dir / "m.safetensors")

    def recording(self, name, value, blocks=(0, 1)):
        """300 tokens whose entries are all `value`."""
        tensors = {}
        bin_of_value = (struct.unpack("<I", struct.pack("<f", value))[0] >> 20) - 695
        counts = [300 * 64 if i == bin_of_value else 0 for i in range(514)]
        for layer in [f"blocks.{block}.{part}" for block in blocks for part in ("attn.q", "mlp.up")]:
            for part, number in {"channel_amax": value, "channel_mean": value, "second_moment": value * value}.items():
                tensors[f"{layer}.{part}"] = ("F32", [64], checkpoints.f32(*[number] * 64))
            tensors[f"{layer}.amax"] = ("F32", [], checkpoints.f32(value))
            tensors[f"{layer}.tokens"] = ("I64", [], struct.pack("<q", 300))
            tensors[f"{layer}.histogram"] = ("I64", [514], struct.pack("<514q", *counts))
        return checkpoints.write(self.dir / name, tensors, {"mezzotint_calibration": "1"})

    def scale(self, path, layer="blocks.1.attn.q"):
        dtype, shape, raw = checkpoints.read(self.dir / path)[0][f"{layer}.input_scale"]
        self.assertEqual((dtype, shape), ("F32", []))
        return struct.unpack("<f", raw)[0]

    def test_several_files_after_one_flag_or_several(self):
        a, b = self.recording("a.safetensors", 7.0), self.recording("b.safetensors", 14.0, blocks=[1])
        self.run_cli("convert", self.model, "-o", "one.safetensors", "--calibration", a, b)
        self.run_cli("convert", self.model, "-o", "two.safetensors", "--calibration", b, "--calibration", a)
        self.assertEqual((self.dir / "one.safetensors").read_bytes(), (self.dir / "two.safetensors").read_bytes())
        self.assertEqual(self.scale("one.safetensors"), 14 / 448)
        self.assertEqual(self.scale("one.safetensors", "blocks.0.mlp.up"), 7 / 448)
        self.run_cli("verify", "one.safetensors")
        rows = self.run_json("plan", self.model, "--calibration", a, "--input-scale", "none")["rows"]
        self.assertFalse([row for row in rows if "input_scale" in row])

    def test_smooth(self):
        a = self.recording("a.safetensors", 7.0)
        options = ["--to", "nvfp4", "--calibration", a]
        self.run_cli("convert", self.model, "-o", "plain.safetensors", *options)
        self.run_cli("convert", self.model, "-o", "smooth.safetensors", *options, "--smooth", "0.5")
        self.run_cli("verify", "smooth.safetensors")
        plain, smooth = (checkpoints.read(self.dir / f"{name}.safetensors")[0] for name in ("plain", "smooth"))
        added = set(smooth) - set(plain)
        self.assertEqual(len(added), 4)
        for name in added:
            self.assertTrue(name.endswith(".pre_quant_scale"))
            self.assertEqual(smooth[name][:2], ("F32", [64]))
        replay = ["--recipe", "smooth.safetensors", "--calibration", a]
        self.run_cli("convert", self.model, "-o", "again.safetensors", *replay)
        self.assertEqual((self.dir / "smooth.safetensors").read_bytes(), (self.dir / "again.safetensors").read_bytes())
        rows = self.run_json("plan", self.model, *options, "--smooth", "0.5")["rows"]
        self.assertEqual([row["smoothing"] for row in rows if "smoothing" in row], [0.5] * 4)
        refused = self.run_cli("convert", self.model, "-o", "fp8.safetensors", "--calibration", a, "--smooth", "0.5")
        self.assertIn("no place for smoothing factors", refused.stderr)
        self.assertIn("--calibration", self.run_cli("plan", self.model, "--smooth", "0.5", code=2).stderr)
        self.run_cli("plan", self.model, "--calibration", a, "--smooth", "2", code=2)

    def test_recipe_wants_the_files_again(self):
        a, b = self.recording("a.safetensors", 7.0), self.recording("b.safetensors", 14.0)
        self.run_cli("convert", self.model, "-o", "first.safetensors", "--calibration", a)
        replay = ["convert", self.model, "-o", "again.safetensors", "--recipe", "first.safetensors"]
        self.assertIn("none are given", self.run_cli(*replay, code=1).stderr)
        self.assertIn("other calibration files", self.run_cli(*replay, "--calibration", b, code=1).stderr)
        self.run_cli(*replay, "--calibration", a)
        self.assertEqual((self.dir / "first.safetensors").read_bytes(), (self.dir / "again.safetensors").read_bytes())
        recipe = json.loads(checkpoints.read(self.dir / "first.safetensors")[1]["mezzotint"])["recipe"]
        self.assertRegex(recipe["calibration"], "^[0-9a-f]{16}$")

    def test_errors(self):
        a = self.recording("a.safetensors", 7.0)
        self.assertIn("not-a-rule", self.run_cli("plan", self.model, "--input-scale", "not-a-rule", code=2).stderr)
        self.assertIn("mezzotint_calibration",
                      self.run_cli("plan", self.model, "--calibration", self.model, code=1).stderr)
        self.assertIn("count double", self.run_cli("plan", self.model, "--calibration", a, a, code=1).stderr)
        self.run_cli("plan", self.model, "--calibration", "missing.safetensors", code=1)
