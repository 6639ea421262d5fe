#!/usr/bin/env python3
"""The examples do what they say: examples/sample_wan.cpp samples what mezzotint-run samples (from files converted with
inputs that it recorded), examples/own_layout.cpp multiplies, saves and loads its own layout.

    run.py FOLDER_OF_PROGRAMS FOLDER_OF_EXAMPLES
"""
import array
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cli"))
import checkpoints  # noqa: E402

WIDTH, HIDDEN, TEXT, FREQUENCIES, CHANNELS = 256, 512, 96, 64, 16


def write(path, tensors):
    """tensors: name -> (shape, floats)"""
    checkpoints.write(path, {name: ("F32", shape, array.array("f", values).tobytes())
                             for name, (shape, values) in tensors.items()})


def read(path):
    return checkpoints.read(path)[0]


def normal(rng, shape, deviation, mean=0.0):
    count = 1
    for size in shape:
        count *= size
    return shape, [rng.gauss(mean, deviation) for _ in range(count)]


def wan(rng, blocks=1):
    tensors = {}

    def linear(name, outputs, inputs):
        tensors[name + ".weight"] = normal(rng, [outputs, inputs], inputs ** -0.5)
        tensors[name + ".bias"] = normal(rng, [outputs], 0.1)

    tensors["patch_embedding.weight"] = normal(rng, [WIDTH, CHANNELS, 1, 2, 2], 0.1)
    tensors["patch_embedding.bias"] = normal(rng, [WIDTH], 0.1)
    linear("text_embedding.0", WIDTH, TEXT)
    linear("text_embedding.2", WIDTH, WIDTH)
    linear("time_embedding.0", WIDTH, FREQUENCIES)
    linear("time_embedding.2", WIDTH, WIDTH)
    linear("time_projection.1", 6 * WIDTH, WIDTH)
    for i in range(blocks):
        block = f"blocks.{i}."
        tensors[block + "modulation"] = normal(rng, [1, 6, WIDTH], 0.3)
        for attention in ("self_attn.", "cross_attn."):
            for part in "qkvo":
                linear(block + attention + part, WIDTH, WIDTH)
            for norm in ("norm_q", "norm_k"):
                tensors[block + attention + norm + ".weight"] = normal(rng, [WIDTH], 0.1, 1.0)
        linear(block + "ffn.0", HIDDEN, WIDTH)
        linear(block + "ffn.2", WIDTH, HIDDEN)
        tensors[block + "norm3.weight"] = normal(rng, [WIDTH], 0.1, 1.0)
        tensors[block + "norm3.bias"] = normal(rng, [WIDTH], 0.1)
    tensors["head.modulation"] = normal(rng, [1, 2, WIDTH], 0.3)
    linear("head.head", 4 * CHANNELS, WIDTH)
    return tensors


def check(condition, message):
    if not condition:
        sys.exit(f"FAILED: {message}")


def sample_wan(programs, examples, folder, rng):
    model, inputs = folder / "model.safetensors", folder / "inputs.safetensors"
    write(model, wan(rng))
    write(inputs, {"x": normal(rng, [1, CHANNELS, 2, 4, 6], 1.0), "context": normal(rng, [1, 5, TEXT], 1.0),
                   "context_null": normal(rng, [1, 5, TEXT], 1.0)})
    recorded = folder / "recorded.safetensors"
    subprocess.run([programs / "mezzotint-run", "wan", model, inputs, "-o", folder / "bf16.safetensors", "--steps", "2",
                    "--cfg", "5", "-q", "--record", recorded], check=True)
    latents = {}
    for format in ("int8_row", "nvfp4"):
        quantized = folder / f"{format}.safetensors"
        subprocess.run([programs / "mezzotint", "convert", model, "-o", quantized, "--to", format, "-q", "--effort", "2",
                        "--calibration", recorded], check=True)
        by_example, by_program = folder / f"{format}-1.safetensors", folder / f"{format}-2.safetensors"
        subprocess.run([examples / "example_sample_wan", quantized, inputs, by_example], check=True)
        subprocess.run([programs / "mezzotint-run", "wan", quantized, inputs, "-o", by_program, "--steps", "4", "--cfg",
                        "5", "-q"], check=True)
        latents[format] = read(by_example)["latent"]
        check(latents[format][:2] == ("BF16", [1, CHANNELS, 2, 4, 6]), f"the latent is {latents[format][:2]}")
        check(latents[format] == read(by_program)["out"], f"{format}: mezzotint-run samples something else")
    report = subprocess.run([programs / "mezzotint", "inspect", quantized], check=True, capture_output=True, text=True)
    check("--calibration" in report.stdout, "the inputs that were recorded were not used")
    check(latents["int8_row"] != latents["nvfp4"], "both formats sample the same")


def comfyui_inputs(programs, folder):
    """Without scales for inputs, ComfyUI's way of rounding them is another than ours, for 8-bit floats alone."""
    model, inputs = folder / "model.safetensors", folder / "inputs.safetensors"
    for format, differs in (("float8_e4m3fn", True), ("int8_row", False)):
        outs = []
        for flags in ([], ["--comfyui-inputs"]):
            out = folder / "out.safetensors"
            subprocess.run([programs / "mezzotint-run", "wan", model, inputs, "-o", out, "--steps", "1", "--cfg", "1",
                            "--to", format, "-q", "-f", *flags], check=True)
            outs.append(read(out)["out"])
        check((outs[0] != outs[1]) == differs, f"{format}: --comfyui-inputs changes what it should not, or nothing")


def adapters_beside(programs, folder, rng):
    """--lora gives what the merged model gives, leaves the base alone, and says what has no place."""
    model, inputs, lora = folder / "model.safetensors", folder / "inputs.safetensors", folder / "lora.safetensors"
    tensors = {}
    for layer in ("blocks_0_self_attn_q", "blocks_0_cross_attn_o", "blocks_0_ffn_0"):
        rows = HIDDEN if layer.endswith("ffn_0") else WIDTH
        tensors[f"lora_unet_{layer}.lora_up.weight"] = normal(rng, [rows, 2], 1.0)
        tensors[f"lora_unet_{layer}.lora_down.weight"] = normal(rng, [2, WIDTH], 0.1)
    tensors["lora_unet_blocks_9_ffn_0.diff_b"] = normal(rng, [HIDDEN], 1.0)
    write(lora, tensors)
    merged, recorded = folder / "merged.safetensors", folder / "recorded-lora.safetensors"
    subprocess.run([programs / "mezzotint", "merge", model, "-o", merged, "--lora", f"{lora}:0.5", "--lora", f"{lora}:0.25",
                    "--no-dampen", "-q"], check=True, capture_output=True)

    def sample(model, *arguments):
        out = folder / "lora-out.safetensors"
        done = subprocess.run([programs / "mezzotint-run", "wan", model, inputs, "-o", out, "--steps", "1", "--cfg", "1",
                               "--dtype", "fp32", "-f", *arguments], check=True, capture_output=True, text=True)
        return array.array("f", read(out)["out"][2]), done
    plain, _ = sample(model)
    beside, done = sample(model, "--lora", f"{lora}:0.5", "--lora", f"{lora}:0.25", "--record", recorded)
    expected, _ = sample(merged)
    size = max(abs(x) for x in expected)
    check(max(abs(a - b) for a, b in zip(beside, expected)) <= 1e-5 * size, "--lora gives something else than the merged model")
    check(max(abs(a - b) for a, b in zip(beside, plain)) >= 1e-2 * size, "--lora changes nothing")
    check("strength 0.5, beside 3 weights" in done.stdout and "strength 0.25, beside 3 weights" in done.stdout, done.stdout)
    check("left out lora_unet_blocks_9_ffn_0" in done.stderr, done.stderr)
    check(any(name.startswith("blocks.0.self_attn.q") for name in read(recorded)), "layers with adapters are not recorded")
    refused = subprocess.run([programs / "mezzotint-run", "wan", model, inputs, "-o", folder / "none.safetensors", "--steps", "1",
                              "--cfg", "1", "--lora", inputs], check=False, capture_output=True, text=True)
    check(refused.returncode == 1 and "no adapter" in refused.stderr, refused.stderr)


def own_layout(programs, examples, folder, rng):
    model, saved = folder / "layer.safetensors", folder / "log8.safetensors"
    shape, values = normal(rng, [64, 96], 0.1)
    write(model, {"layer.weight": (shape, values)})
    said = subprocess.run([examples / "example_own_layout", model, saved], check=True, capture_output=True, text=True)
    check("log8 [64, 96]" in said.stdout, f"it says {said.stdout}")
    tensors = read(saved)
    dtype, stored, codes = tensors["layer.weight"]
    check((dtype, stored) == ("U8", shape), f"the codes are {dtype} {stored}")
    check(json.loads(tensors["layer.comfy_quant"][2])["format"] == "log8", "the marker names another format")
    decoded = [(-1 if code > 127 else 1) * 2 ** ((code & 127) / 8 - 14) if code & 127 else 0.0 for code in codes]
    worst = max(abs(a - b) / abs(b) for a, b in zip(decoded, values) if abs(b) > 1e-3)
    check(worst <= 2 ** (1 / 16) - 1 + 1e-6, f"a code is {worst} from its weight")
    other = subprocess.run([programs / "mezzotint", "inspect", saved], check=True, capture_output=True, text=True)
    check("log8" in other.stdout, "a program without the format does not name it")


def main():
    programs, examples = Path(sys.argv[1]), Path(sys.argv[2])
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        sample_wan(programs, examples, Path(folder), rng)
        adapters_beside(programs, Path(folder), rng)
        comfyui_inputs(programs, Path(folder))
        own_layout(programs, examples, Path(folder), rng)
    print("ok")


if __name__ == "__main__":
    main()
