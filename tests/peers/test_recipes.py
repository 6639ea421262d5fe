"""Recipes named after convert_to_quant's filters quantize the layers that it quantizes."""

import json
from pathlib import Path

import numpy as np
import pytest

from peerlib import container

SHAPES = Path(__file__).resolve().parents[2] / "tools" / "shapes"
MODELS = {"distillation_large": "chroma", "distillation_small": "chroma", "flux2": "flux2-dev",
          "hunyuan": "hunyuan-video", "ideogram4": "ideogram4", "krea2": "krea2", "lens": "lens",
          "ltxv2": "ltx-2", "nerf_large": "chroma-radiance", "nerf_small": "chroma-radiance",
          "qwen": "qwen-image", "radiance": "chroma-radiance", "t5xxl": "umt5-xxl",
          "wan": "wan2.1-i2v-14b", "zimage": "z-image", "zimage_refiner": "z-image"}
OPTIONS = {"fp8": ["--simple"], "nvfp4": ["--nvfp4", "--simple"],
           "int8-convrot": ["--int8", "--scaling_mode", "row", "--convrot", "--simple"]}
CASES = [(flag, kind) for flag in MODELS for kind in ("fp8", "nvfp4")]
CASES += [("wan", "int8-convrot"), ("flux2", "int8-convrot")]


def names_and_ranks(model):
    """The first three and last two blocks of every stack; filters name no others."""
    shapes = json.loads((SHAPES / f"{model}.json").read_text())
    found = {t["name"]: len(t["shape"]) for t in shapes["tensors"]}
    for group in shapes["blocks"]:
        first = group.get("first", 0)
        indices = group.get("indices") or list(range(first, first + group.get("count", 0)))
        for i in sorted({*indices[:3], *indices[-2:]}):
            for t in group["tensors"]:
                found[f"{group['prefix']}{i}.{t['name']}"] = len(t["shape"])
    return {shapes["prefix"] + name: rank for name, rank in found.items()}


def small_model(path, model, rng):
    tensors = {}
    for name, rank in names_and_ranks(model).items():
        shape = {0: (), 1: (32,), 2: (32, 256)}.get(rank, (2,) * rank)
        tensors[name] = container.bf16(rng.standard_normal(shape) * 0.02)
    # What no model has but the text encoder's filter removes.
    tensors["decoder.block.0.q.weight"] = container.bf16(rng.standard_normal((32, 256)))
    return container.write(path, tensors)


@pytest.mark.parametrize("flag,kind", CASES)
def test_same_layers_as_ctq(mezzotint, run_ctq, rng, tmp_path, flag, kind):
    source = small_model(tmp_path / "in.safetensors", MODELS[flag], rng)
    theirs = container.read(run_ctq(source, "--comfy_quant", f"--{flag}", "--manual_seed", "7",
                                    "--device", "cpu", *OPTIONS[kind]))
    mezzotint.run("convert", source, "-o", tmp_path / "ours.safetensors",
                  "--recipe", f"ctq-{flag}-{kind}")
    ours = container.read(tmp_path / "ours.safetensors")
    marks, expected = container.layers(ours), container.layers(theirs)
    assert len(expected) > 5
    assert set(marks) == set(expected)
    assert {m["format"] for m in marks.values()} == {m["format"] for m in expected.values()}
    for name in ("decoder.block.0.q.weight",):
        assert (name in ours.tensors) == (name in theirs.tensors)
    # Negative control: the architecture's own rules choose other layers for these two.
    if flag in ("radiance", "zimage_refiner"):
        mezzotint.run("convert", source, "-o", tmp_path / "auto.safetensors")
        assert set(container.layers(container.read(tmp_path / "auto.safetensors"))) != set(expected)
