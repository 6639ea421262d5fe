"""What becomes of a LoRA that meets a quantized model (docs/quality.md): lora_scales.py

1024 x 1024, the weights of synthetic.py's "lowrank" with a LoRA. Two conversions of the weights: by themselves, and with
scales that allow for the LoRA (--lora). Then the LoRA is merged into the codes, in four ways:
- stale: onto the scales that are there, by plain torch (codec() below): what a loader does that rounds and keeps scales
- merge: `mezzotint merge`, nearest and with error feedback
- fresh: the sum quantized anew, as ComfyUI does
Errors are relative to weight + LoRA. Exits with the targets that were missed.
"""
import sys
import tempfile
from pathlib import Path

import torch
from program import run
from reference import cast_fp8, cast_int8, weights
from safetensors.torch import load_file, save_file

SIZE = 1024
NAME = "blocks.0.fc"
KEY = f"{NAME}.weight"
FORMATS = ["float8_e4m3fn", "int8_row", "int8_blockwise", "nvfp4"]


def smooth():
    """Rank 32, of falling size: no weight stands out."""
    generator = torch.Generator().manual_seed(300)
    up, down = (torch.randn(*shape, generator=generator) for shape in ((SIZE, 32), (32, SIZE)))
    return up * torch.arange(1, 33).float() ** -0.5, down


def concentrated():
    """Rank 16, with 8 rows and 8 columns 40 times as large."""
    generator = torch.Generator().manual_seed(300)
    up, down = (torch.randn(*shape, generator=generator) for shape in ((SIZE, 16), (16, SIZE)))
    up[torch.randperm(SIZE, generator=generator)[:8]] *= 40
    down[:, torch.randperm(SIZE, generator=generator)[:8]] *= 40
    return up, down


CASES = {"smooth, 1 %": (smooth, 0.01), "concentrated, 5 %": (concentrated, 0.05), "concentrated, 10 %": (concentrated, 0.1)}


def error(values, wanted):
    return ((values - wanted).norm() / wanted.norm()).item()


def cast_fp4(x):
    step = torch.where(x.abs() < 2, 0.5, torch.where(x.abs() < 4, 1.0, 2.0))
    return torch.sign(x) * ((x.abs() / step).round() * step).clamp(max=6)


def unswizzled(scales):
    """Block scales of nvfp4 row by row: tiles of 128 x 4 are stored as 32 x 4 x 4."""
    rows, cols = scales.shape
    tiles = scales.view(rows // 128, cols // 4, 32, 4, 4)
    return tiles.permute(0, 3, 2, 1, 4).reshape(rows, cols)


def codec(tensors, target):
    """The scale of every weight, and what rounds to the codes of scale 1."""
    scale = tensors[f"{NAME}.weight_scale"]
    if target == "nvfp4":
        blocks = unswizzled(scale.float()) * tensors[f"{NAME}.weight_scale_2"].float()
        return blocks.repeat_interleave(16, 1), cast_fp4
    scale = scale.float()
    if scale.dim() == 2 and scale.shape[1] > 1:
        scale = scale.repeat_interleave(SIZE // scale.shape[0], 0).repeat_interleave(SIZE // scale.shape[1], 1)
    elif scale.numel() > 1:
        scale = scale.view(SIZE, 1)
    return scale.expand(SIZE, SIZE), cast_fp8 if target.startswith("float8") else cast_int8


class Bed:
    def __init__(self, folder, make, share):
        self.folder = Path(folder)
        self.w = weights("lowrank", SIZE, SIZE)
        up, down = make()
        up = up * (share * self.w.norm() / (up @ down).norm())
        self.wanted = self.w + up @ down
        self.delta = up @ down
        self.lora = self.folder / "lora.safetensors"
        save_file({f"{NAME}.lora_up.weight": up.contiguous(), f"{NAME}.lora_down.weight": down.contiguous()}, self.lora)
        self.base, self.sum = self.save("base", self.w), self.save("sum", self.wanted)

    def save(self, name, w):
        path = self.folder / f"{name}.safetensors"
        save_file({KEY: w.contiguous()}, path)
        return path

    def convert(self, source, target, *options):
        packed = self.folder / "packed.safetensors"
        run("convert", source, "-o", packed, "--to", target, "--preset", "none", "--include", r"blocks\..*", "-f", *options)
        return packed

    def values(self, packed):
        plain = self.folder / "plain.safetensors"
        run("convert", packed, "-o", plain, "--to", "fp32", "--preset", "none", "-f")
        return load_file(plain)[KEY].float()

    def merged(self, packed, rounding):
        out = self.folder / "merged.safetensors"
        run("merge", packed, "-o", out, "--lora", self.lora, "--rounding", rounding, "-f")
        return error(self.values(out), self.wanted)

    def measure(self, target):
        result = {}
        for scales, options in (("plain", []), ("allowing", ["--lora", self.lora])):
            packed = self.convert(self.base, target, *options)
            values = self.values(packed)
            step, cast = codec(load_file(packed), target)
            # The codec here is the file's: its own values are on its grid.
            assert error(cast(values / step) * step, values) < 1e-6, (target, scales)
            sum_ = values + self.delta
            result[scales] = {
                "base": error(values, self.w), "stale": error(cast(sum_ / step) * step, self.wanted),
                "nearest": self.merged(packed, "nearest"), "feedback": self.merged(packed, "feedback"),
                "fresh": error(self.values(self.convert(self.save("anew", sum_), target, "--effort", "0")), self.wanted)}
        result["original"] = error(self.values(self.convert(self.sum, target)), self.wanted)
        return result


def main():
    torch.set_num_threads(1)
    results, missed = {}, []
    print("| LoRA | format | scales | base | stale | merge, nearest | merge, feedback | fresh | from the original |\n"
          "|---|---|---|---|---|---|---|---|---|")
    for case, (make, share) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            bed = Bed(folder, make, share)
            for target in FORMATS:
                measured = results[case, target] = bed.measure(target)
                for scales in ("plain", "allowing"):
                    m = measured[scales]
                    print(f"| {case} | {target} | {scales} | {m['base']:.4f} | {m['stale']:.4f} | {m['nearest']:.4f} | "
                          f"{m['feedback']:.4f} | {m['fresh']:.4f} | {measured['original']:.4f} |", flush=True)

    def expect(what, holds):
        if not holds:
            missed.append(what)

    fp8, int8 = (results["concentrated, 10 %", target] for target in ("float8_e4m3fn", "int8_blockwise"))
    expect("int8 blocks beat fp8 on the base", int8["plain"]["base"] < 0.5 * fp8["plain"]["base"])
    expect("and lose with stale scales", int8["plain"]["stale"] > 1.5 * fp8["plain"]["fresh"])
    expect("and win again with scales that allow for it", int8["allowing"]["stale"] < min(fp8["allowing"]["stale"], 0.75 * fp8["plain"]["fresh"]))
    for (case, target), m in results.items():
        if case.startswith("smooth"):
            expect(f"{target}: a smooth LoRA needs none of this", m["allowing"]["stale"] < 1.05 * m["plain"]["stale"])
        else:
            expect(f"{target} {case}: no worse than fresh scales", m["allowing"]["stale"] < 1.12 * m["plain"]["fresh"])
    if missed:
        sys.exit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
