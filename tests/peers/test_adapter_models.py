"""Adapters on whole models, through ComfyUI's own key maps, merges and bypass.

Narrow models of real architectures; adapters for everything that a key map names, in each of its dialects.
"""

import logging
import zlib

import numpy as np
import pytest

from peerlib import adapters, container, models

NEAR = 1e-5
# model -> dialect -> prefix of the stems that are used
DIALECTS = {
    "flux": {"diffusers": "transformer.", "kohya": "lora_unet_", "simpletuner": "lycoris_", "onetrainer": "lora_transformer_",
             "own names": "diffusion_model."},
    "wan": {"kohya": "lora_unet_", "own names": "diffusion_model."},
}


OVERLAPPING = (".linear1_qkv", "to_qkv_mlp_proj")


def target_of(value):
    """(key, (first row, rows) or None, whether halves are swapped) of an entry of a key map."""
    if isinstance(value, str):
        return value, None, False
    return value[0], tuple(value[1][1:]) if value[1] is not None else None, len(value) > 2


def factors(rng, algorithm, shape):
    """Tensors of an adapter for rows of a weight, with a delta of some percent of it."""
    if algorithm == "diff":
        return {".diff": 0.1 * rng.standard_normal(shape)}
    rows, cols, kernel = shape[0], shape[1], tuple(shape[2:])
    ones = (1,) * len(kernel)

    def normal(*sizes):
        return 0.1 * rng.standard_normal(sizes)
    if algorithm == "lora":
        return {".lora_up.weight": normal(rows, 4, *ones), ".lora_down.weight": normal(4, cols, *kernel),
                ".alpha": np.array(2.0)}
    if algorithm == "loha":
        inner = cols * int(np.prod(kernel))
        return {".hada_w1_a": normal(rows, 4), ".hada_w1_b": 4 * normal(4, inner), ".hada_w2_a": normal(rows, 4),
                ".hada_w2_b": 4 * normal(4, inner), ".alpha": np.array(4.0)}
    if algorithm == "lokr":
        return {".lokr_w1": normal(4, 4), ".lokr_w2_a": normal(rows // 4, 2), ".lokr_w2_b": normal(2, cols // 4),
                ".alpha": np.array(1.0)}
    if algorithm == "glora":
        return {".a1.weight": normal(cols, 4), ".a2.weight": normal(4, cols), ".b1.weight": normal(rows, 4),
                ".b2.weight": normal(4, cols)}
    assert algorithm == "oft"
    return {".oft_blocks": normal(rows // 8, 8, 8)}


def adapter_of(comfy, patcher, prefix, algorithms, path):
    """A file with an adapter for everything that stems with this prefix mean; (stem, target) of each."""
    key_map = comfy.lora.model_lora_keys_unet(patcher.model, {})
    shapes = {key: tuple(value.shape) for key, value in patcher.model.state_dict().items()}
    tensors, used = {}, {}
    for stem, value in key_map.items():
        key, offset, swapped = target_of(value)
        target = key, offset
        # One name for each target. Slices that overlap others are a test of their own: of some algorithms the order counts.
        if not stem.startswith(prefix) or target in used or key not in shapes or stem.endswith(OVERLAPPING):
            continue
        rng = np.random.default_rng(zlib.crc32(stem.encode()))
        shape = shapes[key] if offset is None else (offset[1], *shapes[key][1:])
        algorithm = algorithms[len(used) % len(algorithms)]
        if len(shape) < 2 or key.endswith(".bias") or not key.endswith(".weight"):
            algorithm = "diff"
        elif len(shape) > 2 or swapped or shape[0] % 8 or shape[1] % 4:
            algorithm = "lora"
        used[target] = stem
        tensors.update({stem + suffix: container.f32(values) for suffix, values in factors(rng, algorithm, shape).items()})
        bias = key.removesuffix(".weight") + ".bias"
        # Where biases have names of their own, they have an adapter already.
        if offset is None and algorithm == "lora" and bias in shapes and not swapped and bias not in key_map:
            tensors[stem + ".diff_b"] = container.f32(0.1 * rng.standard_normal(shapes[bias]))
    container.write(path, tensors)
    return used


def load_patcher(comfy, torch, path):
    return comfy.sd.load_diffusion_model(str(path), model_options={"dtype": torch.float32}, disable_dynamic=True)


@pytest.mark.parametrize("architecture, dialect", [(a, d) for a, dialects in DIALECTS.items() for d in dialects])
def test_comfyui_merges_the_same_model(mezzotint, comfy, torch, tmp_path, caplog, architecture, dialect):
    build, _, _ = models.ARCHITECTURES[architecture]
    half = models.checkpoint(build(comfy, torch), tmp_path / "bf16.safetensors")
    before = container.read(half).tensors
    wide = container.write(tmp_path / "fp32.safetensors", {name: container.f32(t.array()) for name, t in before.items()})
    patcher = load_patcher(comfy, torch, wide)
    lora = tmp_path / "lora.safetensors"
    used = adapter_of(comfy, patcher, DIALECTS[architecture][dialect], ("lora", "loha", "lokr", "glora", "oft"), lora)
    assert len(used) > 20
    if architecture == "flux" and dialect == "diffusers":
        assert sum(offset is not None for _, offset in used) >= 14, "no fused targets"

    caplog.clear()
    with caplog.at_level(logging.WARNING):
        merging, _ = comfy.sd.load_lora_for_models(patcher, None, comfy.utils.load_torch_file(str(lora)), 0.75, 0.0)
    assert "not loaded" not in caplog.text.lower(), caplog.text
    outputs = {}
    for base in (wide, half):
        outputs[base] = tmp_path / f"out-{base.name}"
        mezzotint.run("merge", base, "-o", outputs[base], "--lora", f"{lora}:0.75", "--strict")
    ours, rounded = (container.read(outputs[base]).tensors for base in (wide, half))
    changed = 0
    for name, tensor in before.items():
        key = f"diffusion_model.{name}"
        weight = tensor.array().astype(np.float64)
        if key not in merging.patches:
            assert np.array_equal(ours[name].array(), weight), name
            continue
        patches = [p for p in merging.patches[key]]
        # ComfyUI squares the strength of OFT: it is asked for the one whose square is meant.
        patches = [(p[0] ** 0.5, *p[1:]) if getattr(p[1], "name", "") == "oft" else p for p in patches]
        theirs = comfy.lora.calculate_weight(patches, torch.tensor(weight, dtype=torch.float32), key).double().numpy()
        assert adapters.error(ours[name].array(), theirs) < NEAR, name
        assert adapters.error(weight, theirs) > 1e-3, name
        close = np.abs(rounded[name].array() - container.bf16(theirs).array())
        assert np.all(close <= 2 ** -7 * np.abs(theirs) + 1e-6 * np.abs(theirs).max()), name
        changed += 1
    assert changed >= 20 and changed >= len({key for key, _ in used})


def test_every_slice_of_a_fused_layer_counts(mezzotint, comfy, torch, tmp_path):
    """Flux: `linear1_qkv`, and to_q and to_k within it; each is a patch of its own."""
    path = models.checkpoint(models.flux(comfy, torch), tmp_path / "base.safetensors")
    patcher = load_patcher(comfy, torch, path)
    rng, tensors = np.random.default_rng(1), {}
    for stem, rows in (("diffusion_model.single_blocks.1.linear1_qkv", 768),
                       ("transformer.single_transformer_blocks.1.attn.to_q", 256),
                       ("transformer.single_transformer_blocks.1.attn.to_k", 256)):
        tensors.update({stem + suffix: container.f32(v) for suffix, v in factors(rng, "lora", (rows, 256)).items()})
    lora = container.write(tmp_path / "lora.safetensors", tensors)
    mezzotint.run("merge", path, "-o", tmp_path / "out.safetensors", "--lora", lora, "--strict")
    merging, _ = comfy.sd.load_lora_for_models(patcher, None, comfy.utils.load_torch_file(str(lora)), 1.0, 0.0)
    key, name = "diffusion_model.single_blocks.1.linear1.weight", "single_blocks.1.linear1.weight"
    weight = torch.tensor(container.read(path).tensors[name].array())
    theirs = comfy.lora.calculate_weight(merging.patches[key], weight.clone(), key).double().numpy()
    got = container.read(tmp_path / "out.safetensors").tensors[name].array()
    assert len(merging.patches[key]) == 3
    assert np.all(np.abs(got - theirs) <= 2 ** -7 * np.abs(theirs) + 1e-5)
    assert adapters.error(weight.numpy(), theirs) > 1e-2


# --- quantized bases --------------------------------------------------------------------------------------------------
def spiky(rng, rows, columns, rank=16, spikes=8, size=40):
    """Factors whose product has a few rows and columns that are much larger than the rest."""
    up, down = rng.standard_normal((rows, rank)), rng.standard_normal((rank, columns))
    up[rng.choice(rows, spikes, replace=False)] *= size
    down[:, rng.choice(columns, spikes, replace=False)] *= size
    return up, down


# format -> least gain with feedback, largest error beside ComfyUI's
QUANTIZED = {"float8_e4m3fn": 0.9, "int8_row": 0.95, "nvfp4": 0.6, "mxfp8": 0.85}


@pytest.mark.parametrize("spikes", [False, True], ids=["even", "spiky"])
@pytest.mark.parametrize("target", QUANTIZED)
def test_more_of_a_lora_stays_in_quantized_weights(mezzotint, comfy, torch, tmp_path, capsys, target, spikes):
    """ComfyUI recalculates the scale and rounds stochastically; error and gain of both, on the same file."""
    rng = np.random.default_rng(7)
    name, rows, columns = "blocks.0.self_attn.q", 1024, 1024
    # Structure as trained weights have it: a low-rank part and different sizes of rows.
    weight = (rng.standard_normal((rows, columns)) + rng.standard_normal((rows, 32)) @ rng.standard_normal((32, columns)) / 8)
    weight = (0.02 * weight * rng.uniform(0.5, 1.5, (rows, 1))).astype(np.float32)
    up, down = spiky(rng, rows, columns) if spikes else (rng.standard_normal((rows, 16)), rng.standard_normal((16, columns)))
    share = (0.05 if spikes else 0.01) * np.linalg.norm(weight) / np.linalg.norm(up @ down)
    up *= share
    lora = {".lora_up.weight": up, ".lora_down.weight": down, ".alpha": np.array(16.0)}
    base = container.write(tmp_path / "in.safetensors", {name + ".weight": container.f32(weight)})
    mezzotint.convert(base, target, tmp_path / "base.safetensors", include=".*")
    file = container.write(tmp_path / "lora.safetensors",
                           {f"diffusion_model.{name}{suffix}": container.f32(v) for suffix, v in lora.items()})
    delta = (up.astype(np.float32).astype(np.float64) @ down.astype(np.float32))
    wanted = weight + delta

    def decoded(path):
        from peerlib import linears
        return linears.load(comfy, torch, path, {name: (rows, columns)})[name]

    linear = decoded(tmp_path / "base.safetensors")
    before = linear.weight.dequantize().double().numpy()
    # As ModelPatcher.patch_weight_to_device does it.
    key = f"diffusion_model.{name}.weight"
    patch = comfy.lora.load_lora(adapters.torch_state(torch, lora, f"diffusion_model.{name}"),
                                 {f"diffusion_model.{name}": key}, log_missing=False)[key]
    floats = linear.convert_weight(linear.weight.to(torch.float32), inplace=True)
    summed = comfy.lora.calculate_weight([(1.0, patch, 1.0, None, None)], floats, key)
    linear.set_weight(summed, seed=comfy.utils.string_to_seed(key))
    results = {"ComfyUI": linear.weight.dequantize().double().numpy()}
    for rounding in ("feedback", "nearest"):
        mezzotint.run("merge", tmp_path / "base.safetensors", "-o", tmp_path / f"{rounding}.safetensors", "--lora", file,
                      "--rounding", rounding)
        results[rounding] = decoded(tmp_path / f"{rounding}.safetensors").weight.dequantize().double().numpy()

    def gain(got):
        return float(np.vdot(got - before, delta) / np.vdot(delta, delta))

    def error(got):
        return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))
    with capsys.disabled():
        print(f"\n{target}, {'spiky' if spikes else 'even'}: " + "; ".join(
            f"{who} gain {gain(got):.3f} error {error(got):.4f}" for who, got in results.items()))
    assert error(results["feedback"]) < error(results["ComfyUI"])
    assert gain(results["feedback"]) >= QUANTIZED[target] and abs(gain(results["feedback"]) - 1) < 0.45
    assert abs(gain(before)) < 1e-9
