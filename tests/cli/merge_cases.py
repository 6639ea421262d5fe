"""merge, and the adapters of convert."""
import struct

import checkpoints
from adapter_case import COLS, RANK, ROWS, AdapterTest
from checkpoints import f32


def floats(raw):
    return struct.unpack(f"<{len(raw) // 4}f", raw)


class MergeTest(AdapterTest):
    def expect(self, path, strength, places=4):
        tensors, _ = checkpoints.read(self.dir / path)
        got = floats(tensors["blocks.0.q.weight"][2])
        for r in range(ROWS):
            for c in range(COLS):
                delta = sum(self.up[r * RANK + k] * self.down[k * COLS + c] for k in range(RANK))
                self.assertAlmostEqual(got[r * COLS + c], self.w[r * COLS + c] + strength * delta, places)
        self.assertEqual(tensors["blocks.0.k.weight"][2], f32(*self.w))

    def test_merges_with_strengths(self):
        for argument, strength in [("lora.safetensors", 1), ("lora.safetensors:0.5", 0.5), ("lora.safetensors:-1e-1", -0.1),
                                   ("lora.safetensors:+2", 2)]:
            self.run_cli("merge", "base.safetensors", "-o", "out.safetensors", "--lora", argument, "-f")
            self.expect("out.safetensors", strength)
        self.run_cli("merge", "base.safetensors", "-o", "out.safetensors", "--lora", "lora.safetensors", code=1)

    def test_several_are_dampened(self):
        two = ["--lora", "lora.safetensors", "--lora", "lora.safetensors:0.5", "-f"]
        self.run_cli("merge", "base.safetensors", "-o", "out.safetensors", *two)
        self.expect("out.safetensors", 1 + 0.9 * 0.5)
        self.run_cli("merge", "base.safetensors", "-o", "out.safetensors", *two, "--no-dampen")
        self.expect("out.safetensors", 1.5)

    def test_colons_in_names(self):
        for name in ["a:b.safetensors", "c:0.5", "lora:x"]:
            self.write_lora(name, "blocks.0.q")
            self.run_cli("merge", "base.safetensors", "-o", "out.safetensors", "--lora", name, "-f")
            self.expect("out.safetensors", 1)
            self.run_cli("merge", "base.safetensors", "-o", "out.safetensors", "--lora", name + ":2", "-f")
            self.expect("out.safetensors", 2)
        error = self.run_cli("merge", "base.safetensors", "-o", "out.safetensors", "--lora", r"C:\loras\none.safetensors",
                             "-f", code=1).stderr
        self.assertIn(r"C:\loras\none.safetensors", error)

    def test_convert_merges_first(self):
        for arguments, strength in [(["--merge-lora", "lora.safetensors"], 1),
                                    (["--merge-lora", "lora.safetensors:2", "--merge-lora-scale", "0.25"], 0.5),
                                    (["--merge-loras", "lora.safetensors", "lora.safetensors"], 1.9),
                                    (["--merge-loras", "lora.safetensors", "lora.safetensors", "--merge-lora-dampen"], 1.9),
                                    (["--merge-loras", "lora.safetensors", "lora.safetensors",
                                      "--no-merge-lora-dampen"], 2)]:
            self.run_cli("convert", "base.safetensors", "-o", "out.safetensors", "--to", "fp32", "-f", *arguments)
            self.expect("out.safetensors", strength)
        self.run_cli("convert", "base.safetensors", "--merge-lora-scale", "2", code=2)
        self.run_cli("convert", "base.safetensors", "--merge-lora-dampen", "--no-merge-lora-dampen", code=2)

    def test_quantized_bases(self):
        self.run_cli("convert", "base.safetensors", "-o", "q.safetensors", "--to", "int8_row", "--preset", "none")
        before, _ = checkpoints.read(self.dir / "q.safetensors")
        for rounding in ["feedback", "nearest", "stochastic"]:
            self.run_cli("merge", "q.safetensors", "-o", "out.safetensors", "--lora", "lora.safetensors", "--rounding",
                         rounding, "-f")
            after, metadata = checkpoints.read(self.dir / "out.safetensors")
            self.assertEqual(list(after), list(before))
            for name in after:
                if not name.startswith("blocks.0.q.weight"):
                    self.assertEqual(after[name], before[name])
            self.assertNotEqual(after["blocks.0.q.weight"], before["blocks.0.q.weight"])
            self.assertIn("lora.safetensors", metadata["mezzotint"])
        self.run_cli("merge", "q.safetensors", "-o", "out.safetensors", "--lora", "lora.safetensors", "--from",
                     "base.safetensors", "--to", "fp32", "-f")
        tensors, _ = checkpoints.read(self.dir / "out.safetensors")
        self.assertNotEqual(tensors["blocks.0.k.weight"][2], f32(*self.w))
        self.run_cli("merge", "q.safetensors", "-o", "o.safetensors", "--lora", "lora.safetensors", "--rounding", "up",
                     code=2)

    def test_plans_and_what_has_no_place(self):
        self.write_lora("other.safetensors", "blocks.7.q")
        error = self.run_cli("merge", "base.safetensors", "-o", "out.safetensors", "--lora", "other.safetensors", code=1)
        self.assertIn("adapter-unrelated", error.stderr)
        tensors, _ = checkpoints.read(self.dir / "lora.safetensors")
        more, _ = checkpoints.read(self.dir / "other.safetensors")
        checkpoints.write(self.dir / "both.safetensors", {**tensors, **more})
        plan = self.run_json("merge", "base.safetensors", "-o", "out.safetensors", "--lora", "both.safetensors", "--dry-run")
        rows = {row["name"]: row for row in plan["plans"][0]["rows"]}
        self.assertEqual(rows["blocks.0.q.weight"]["merged"], 1)
        self.assertNotIn("merged", rows["blocks.0.k.weight"])
        self.assertTrue(any("blocks.7.q" in line for line in plan["plans"][0]["warnings"]))
        error = self.run_cli("merge", "base.safetensors", "-o", "out.safetensors", "--lora", "both.safetensors", "--strict",
                             code=1)
        self.assertIn("unmatched-adapter-keys", error.stderr)
        self.assertNotIn("out.safetensors", self.listing())

    def test_inputs_are_no_outputs(self):
        for name in ["base.safetensors", "lora.safetensors"]:
            error = self.run_cli("merge", "base.safetensors", "-o", name, "--lora", "lora.safetensors", "-f", code=1)
            self.assertIn("output-is-input", error.stderr)
