#!/usr/bin/env python3
"""A format that is only a folder goes through the whole program: listed, converted to, inspected, verified, compared,
repaired, edited and converted back. The program without that folder copies such a file's layers as they are.

    through_program.py PROGRAM_WITH_TOY PROGRAM
"""
import json
import math
import random
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cli"))
from checkpoints import read, write  # noqa: E402

FORMAT = "toy_int4"
SHAPES = {"blocks.0.attn.q": (96, 64), "blocks.0.mlp.up": (33, 65), "blocks.1.mlp.down": (64, 200)}


def decode(tensors, layer, shape):
    """The toy's weights by its README, unrotated, independent of the program."""
    rows, cols = shape
    _, stored, codes = tensors[layer + ".weight"]
    _, _, units = tensors[layer + ".weight_scale"]
    (g,) = struct.unpack("<f", tensors[layer + ".weight_scale_2"][2])
    out = []
    for i in range(rows):
        for j in range(cols):
            byte = codes[i * stored[1] + j // 2]
            code = (byte >> 4 if j % 2 else byte) & 15
            out.append((code - 16 if code > 7 else code) * g * units[i])
    return out


def check(condition, message):
    if not condition:
        sys.exit(f"FAILED: {message}")


def main():
    program, without = sys.argv[1:3]

    def run(*arguments, code=0, tool=program):
        result = subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True)
        check(result.returncode == code,
              f"{arguments}: exit {result.returncode}, expected {code}\n{result.stdout}{result.stderr}")
        return result.stdout

    rng = random.Random(FORMAT)
    with tempfile.TemporaryDirectory() as folder:
        source, toy, back, again = (Path(folder) / f"{n}.safetensors" for n in ("in", "toy", "back", "again"))
        values = {n: [rng.gauss(0, 0.02) for _ in range(math.prod(s))] for n, s in SHAPES.items()}
        write(source, {n + ".weight": ("F32", list(s), struct.pack(f"<{len(values[n])}f", *values[n]))
                       for n, s in SHAPES.items()})

        names = [entry["name"] for entry in json.loads(run("formats", "--json"))["formats"]]
        check(FORMAT in names, "it is not listed")
        check(FORMAT not in run("formats", tool=without), "the program without it lists it")

        run("convert", source, "-o", toy, "--to", FORMAT, "--quiet")
        tensors, metadata = read(toy)
        layers = json.loads(metadata["_quantization_metadata"])["layers"]
        check(set(layers) == set(SHAPES), f"marked: {sorted(layers)}")
        for layer, shape in SHAPES.items():
            check(json.loads(tensors[layer + ".comfy_quant"][2]) == layers[layer], "the marker forms differ")
            got = decode(tensors, layer, shape)
            error = math.sqrt(sum((a - b) ** 2 for a, b in zip(got, values[layer])) / sum(b * b for b in values[layer]))
            check(0.01 < error < 0.2, f"{layer}: relative error {error}")
            wrong = math.sqrt(sum((1.25 * a - b) ** 2 for a, b in zip(got, values[layer])) /
                              sum(b * b for b in values[layer]))
            check(wrong >= 0.2, "control: a scale that is 25 % off passes")

        stored = {layer["name"]: layer["stored"] for layer in json.loads(run("inspect", toy, "--json", "--layers"))["layers"]}
        check(all(stored[layer] == FORMAT for layer in SHAPES), f"inspect: {stored}")
        run("verify", toy, "--any-runtime")
        check("ComfyUI cannot load" in run("verify", toy, code=3), "verify does not say who cannot load it")
        compared = json.loads(run("compare", source, toy, "--json"))
        check(len(compared["layers"]) == len(SHAPES) and 0.01 < compared["relative_error"] < 0.2, f"compare: {compared}")

        run("convert", toy, "-o", back, "--to", "fp32", "--quiet")
        plain, _ = read(back)
        for layer, shape in SHAPES.items():
            raw = plain[layer + ".weight"][2]
            check(list(struct.unpack(f"<{len(raw) // 4}f", raw)) ==
                  [struct.unpack("<f", struct.pack("<f", x))[0] for x in decode_exactly(tensors, layer, shape)],
                  f"{layer}: the way back decodes otherwise")

        run("convert", toy, "-o", again, "--to", FORMAT, "--quiet")
        kept, _ = read(again)
        check(all(kept[n] == tensors[n] for n in tensors if not n.startswith("__")), "codes changed in the same format")

        broken = {n: t for n, t in tensors.items() if not n.endswith("weight_scale_2")}
        write(Path(folder) / "broken.safetensors", broken)
        run("verify", Path(folder) / "broken.safetensors", "--any-runtime", code=3)

        foreign = Path(folder) / "foreign.safetensors"
        run("convert", toy, "-o", foreign, "--quiet", tool=without)
        copied, copied_metadata = read(foreign)
        check(copied == tensors and json.loads(copied_metadata["_quantization_metadata"])["layers"] == layers,
              "the program without the folder changed the layers")
    print(f"{FORMAT}: listed, converted, inspected, verified, compared and converted back")


def decode_exactly(tensors, layer, shape):
    """As decode(), in float32 steps: scale = fl(g * u), weight = fl(code * scale)."""
    def f32(x):
        return struct.unpack("<f", struct.pack("<f", x))[0]
    rows, cols = shape
    (g,) = struct.unpack("<f", tensors[layer + ".weight_scale_2"][2])
    units = tensors[layer + ".weight_scale"][2]
    unscaled = {**tensors, layer + ".weight_scale": ("U8", [rows, 1], b"\1" * rows),
                layer + ".weight_scale_2": ("F32", [], struct.pack("<f", 1.0))}
    codes = decode(unscaled, layer, shape)
    return [f32(code * f32(g * units[i // cols])) for i, code in enumerate(codes)]


if __name__ == "__main__":
    main()
