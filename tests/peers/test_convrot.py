"""Rotated int8 weights against comfy-kitchen's eager backend, which rotates by a matrix product in another order of
additions: codes may differ by one where a rounding decides, and only there. (Weights that rotate exactly are golden bytes
in tests/formats.)"""

import numpy as np
import pytest

from peerlib import container


@pytest.mark.parametrize("group", [4, 16, 64, 256, 1024])
@pytest.mark.parametrize("kind", ["normal", "heavy"])
def test_random_weights(mezzotint, kitchen, torch, rng, tmp_path, group, kind):
    shape = (384, 2048)
    w = (rng.standard_normal(shape) if kind == "normal" else rng.standard_t(3, shape)).astype(np.float32) * 0.02
    source = tmp_path / "in.safetensors"
    container.write(source, {"blocks.0.q.weight": container.f32(w)})
    out = mezzotint.convert(source, f"int8_convrot:convrot_groupsize={group}", tmp_path / "out.safetensors",
                            include=r"\.weight$")
    layout = kitchen.TensorWiseINT8Layout
    codes, params = layout.quantize(torch.from_numpy(w), per_channel=True, convrot=True, convrot_groupsize=group)
    ours, theirs = out.tensors["blocks.0.q.weight"].array().astype(int), codes.numpy().astype(int)
    difference = np.abs(ours - theirs)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
    scale = out.tensors["blocks.0.q.weight_scale"].array()
    np.testing.assert_allclose(scale, params.scale.numpy(), rtol=2e-6)
    # Without the rotation, or with that of another group size, nothing agrees.
    for other in ({}, {"convrot": True, "convrot_groupsize": 16 if group != 16 else 64}):
        wrong, _ = layout.quantize(torch.from_numpy(w), per_channel=True, **other)
        assert (wrong.numpy() != theirs).mean() > 0.5


@pytest.mark.parametrize("kind", ["Linear", "Embedding"])
def test_comfyui_undoes_the_rotation(mezzotint, comfy, torch, rng, tmp_path, kind):
    """ComfyUI's own ops read the marker at the top level, embeddings too (they do not look into "params")."""
    w = rng.standard_normal((64, 512)).astype(np.float32) * 0.02
    source, output = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    container.write(source, {"blocks.0.q.weight": container.f32(w)})
    out = mezzotint.convert(source, "int8_convrot", output, include=r"\.weight$")
    marker = {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 256, "per_row": True}
    assert container.layers(out) == {"blocks.0.q": marker}

    def error_with(change):
        tensors = dict(out.tensors)
        tensors["blocks.0.q.comfy_quant"] = container.marker({**marker, **change})
        path = container.write(tmp_path / "changed.safetensors", tensors)
        state = comfy.utils.load_torch_file(str(path))
        ops = comfy.ops.mixed_precision_ops({}, torch.float32)
        module = ops.Linear(512, 64, bias=False) if kind == "Linear" else ops.Embedding(64, 512)
        module.load_state_dict({n.removeprefix("blocks.0.q."): t for n, t in state.items()})
        x = rng.standard_normal((32, 512)).astype(np.float32)
        with torch.no_grad():
            if kind == "Linear":
                got, expected = module(torch.from_numpy(x)).numpy(), x @ w.T
            else:
                got, expected = module(torch.arange(64)).float().numpy(), w
        return np.linalg.norm(got - expected) / np.linalg.norm(expected)

    assert error_with({}) < 0.02
    assert error_with({"convrot": False}) > 0.5
