"""LoRA files of `mezzotint correct`: against numpy's decomposition, and in ComfyUI's own loaders."""

import json
import logging
import types

import numpy as np
import pytest

from peerlib import container, models, oracle

RANK = 8


def statistics(layer, x, gram):
    """A calibration file's tensors of inputs x [tokens, K]."""
    x = x.astype(np.float64)
    moments = x.T @ x / len(x)
    bits = np.abs(x).astype(np.float32).view(np.uint32).astype(np.int64) >> 20
    tensors = {"amax": np.float32(np.abs(x).max()), "channel_amax": np.abs(x).max(0), "channel_mean": x.mean(0),
               "second_moment": moments.diagonal()}
    if gram:
        tensors["gram"] = moments[np.tril_indices(len(moments))]
    packed = {f"{layer}.{part}": container.f32(values) for part, values in tensors.items()}
    counts = np.bincount(np.clip(bits - 695, 0, 513).ravel(), minlength=514)
    packed[f"{layer}.histogram"] = container.Tensor("I64", (514,), counts.astype("<i8").tobytes())
    packed[f"{layer}.tokens"] = container.Tensor("I64", (), np.int64(len(x)).tobytes())
    return packed


@pytest.mark.parametrize("gram", [True, False], ids=["gram", "moments"])
@pytest.mark.parametrize("target", ["nvfp4", "int8_row", "float8_e4m3fn"])
def test_nothing_of_this_rank_comes_closer(mezzotint, tmp_path, rng, target, gram):
    rows, cols, tokens = 192, 160, 400
    w = rng.standard_t(4, (rows, cols)).astype(np.float32) * np.float32(0.02)
    source = container.write(tmp_path / "in.safetensors", {"blocks.0.q.weight": container.f32(w)})
    packed = tmp_path / "packed.safetensors"
    mezzotint.convert(source, target, packed, include="blocks")
    plain = tmp_path / "plain.safetensors"
    mezzotint.run("convert", packed, "-o", plain, "--to", "fp32", "--preset", "none")
    error = w.astype(np.float64) - container.read(plain).tensors["blocks.0.q.weight"].array()

    x = rng.standard_normal((tokens, cols)) @ (rng.standard_normal((cols, cols)) / np.arange(1, cols + 1))
    calibration = container.write(tmp_path / "calibration.safetensors", statistics("blocks.0.q", x, gram),
                                  {"mezzotint_calibration": "1"})
    h = x.T @ x / tokens
    if not gram:
        h = np.diag(h.diagonal())
    h = h + 0.01 * np.trace(h) / cols * np.eye(cols)  # between 2 and 8 tokens for every input
    root = np.linalg.cholesky(h)

    def left(*options):
        lora = tmp_path / "lora.safetensors"
        mezzotint.run("correct", source, packed, "-o", lora, "--rank", RANK, "--dtype", "fp32", "--force", *options)
        tensors = container.read(lora).tensors
        up, down = (tensors[f"diffusion_model.blocks.0.q.lora_{part}.weight"].array().astype(np.float64)
                    for part in ("up", "down"))
        assert up.shape == (rows, RANK) and down.shape == (RANK, cols)
        return error - up @ down

    for matrix, rest in ((error, left()), (error @ root, left("--calibration", calibration) @ root)):
        least = np.sqrt((np.linalg.svd(matrix, compute_uv=False)[RANK:] ** 2).sum())
        assert 0.9999 * least <= np.linalg.norm(rest) <= 1.005 * least
    # Negative control: the other objective's optimum is not this one's.
    assert np.linalg.norm(left() @ root) > 1.02 * least


def corrected(mezzotint, tmp_path, source, target, *options):
    packed, lora = tmp_path / "packed.safetensors", tmp_path / "lora.safetensors"
    mezzotint.convert(source, target, packed)
    mezzotint.run("correct", source, packed, "-o", lora, "--rank", RANK, "--dtype", "fp32", *options)
    return packed, lora


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."], ids=["bare", "prefixed"])
@pytest.mark.parametrize("architecture", list(models.ARCHITECTURES))
def test_comfyui_computes_it_beside_the_layers(mezzotint, comfy, torch, tmp_path, caplog, architecture, prefix):
    build, run, _ = models.ARCHITECTURES[architecture]
    source = models.checkpoint(build(comfy, torch), tmp_path / "in.safetensors", prefix)
    packed, path = corrected(mezzotint, tmp_path, source, "float8_e4m3fn")
    lora = comfy.utils.load_torch_file(str(path))
    file = container.read(packed)
    layers = {name.removeprefix(prefix) for name in container.layers(file)}

    patcher = comfy.sd.load_diffusion_model(str(packed), model_options={"dtype": torch.float32}, disable_dynamic=True)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        merging, _ = comfy.sd.load_lora_for_models(patcher, None, lora, 1.0, 0.0)
        beside, _ = comfy.sd.load_bypass_lora_for_models(patcher, None, lora, 1.0, 0.0)
    assert "lora key not loaded" not in caplog.text and "NOT LOADED" not in caplog.text, caplog.text
    assert set(merging.patches) == {f"diffusion_model.{layer}.weight" for layer in layers}
    # Negative control of that check.
    stray = {name.replace("diffusion_model.", "other."): tensor for name, tensor in lora.items()}
    with caplog.at_level(logging.WARNING):
        comfy.sd.load_lora_for_models(patcher, None, stray, 1.0, 0.0)
    assert "lora key not loaded" in caplog.text

    originals = container.read(source).tensors
    model = patcher.model.diffusion_model
    inputs, outputs = {}, {}

    def note(name):
        def hook(_module, args, output):
            inputs.setdefault(name, args[0].detach().double().numpy())
            outputs[name] = output.detach().double().numpy()
        return hook

    hooks = [model.get_submodule(name).register_forward_hook(note(name)) for name in sorted(layers)]
    with torch.no_grad():
        run(model, torch)
    for hook in hooks:
        hook.remove()
    injections = beside.injections["bypass_lora"]
    for injection in injections:
        injection.inject(beside)
    try:
        for name in sorted(layers):
            w, bias = originals[f"{prefix}{name}.weight"].array(), originals.get(f"{prefix}{name}.bias")
            expected = inputs[name] @ w.astype(np.float64).T + (bias.array() if bias else 0)
            with torch.no_grad():
                got = model.get_submodule(name)(torch.from_numpy(inputs[name]).float()).double().numpy()
            up, down = (lora[f"diffusion_model.{name}.lora_{part}.weight"].double().numpy() for part in ("up", "down"))
            delta = inputs[name] @ (up @ down).T
            assert np.linalg.norm(got - outputs[name] - delta) < 1e-4 * np.linalg.norm(outputs[name])
            assert np.linalg.norm(delta) > 1e-3 * np.linalg.norm(outputs[name])
            assert np.linalg.norm(got - expected) < np.linalg.norm(outputs[name] - expected), name
    finally:
        for injection in injections:
            injection.eject(beside)


@pytest.mark.parametrize("encoder, names", [
    ("t5xxl", ["encoder.block.0.layer.0.SelfAttention.q", "encoder.block.0.layer.1.DenseReluDense.wi_0"]),
    ("clip_l", ["text_model.encoder.layers.0.mlp.fc1", "text_model.encoder.layers.0.self_attn.q_proj"]),
])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "alone"])
def test_comfyui_knows_the_keys_of_text_encoders(mezzotint, comfy, torch, tmp_path, rng, encoder, names, whole):
    prefix = f"text_encoders.{encoder}.transformer." if whole else ""
    tensors = {f"{prefix}{name}.weight": container.bf16(rng.standard_normal((64, 64)).astype(np.float32))
               for name in names}
    if whole:
        tensors["model.diffusion_model.blocks.0.norm.weight"] = container.bf16(np.ones(64, np.float32))
    if encoder == "clip_l":  # what tells it from other encoders
        tensors[f"{prefix}text_model.embeddings.token_embedding.weight"] = container.bf16(np.ones((64, 64), np.float32))
    source = container.write(tmp_path / "in.safetensors", tensors)
    packed = tmp_path / "packed.safetensors"
    mezzotint.run("convert", source, "-o", packed, "--to", "int8_row", "--component", "all", "--include", "layer")
    text = mezzotint.run("correct", source, packed, "-o", tmp_path / "lora.safetensors", "--json", "--quiet")
    result = json.loads(text[text.index("{"):text.rindex("}") + 1])
    keys = {layer["key"] for layer in result["layers"] if layer["name"].removeprefix(prefix) in names}
    inside = types.SimpleNamespace(state_dict=lambda: {f"{encoder}.transformer.{name}.weight": None for name in names})
    known = comfy.lora.model_lora_keys_clip(inside, {})
    assert {known.get(key) for key in keys} == set(inside.state_dict())
    assert known.get("text_encoders.other") is None
