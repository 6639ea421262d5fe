"""LoRA files of `mezzotint extract`: against numpy's decomposition, and in the loaders of ComfyUI and LyCORIS."""

import logging

import numpy as np
import pytest

from peerlib import adapters, container, models

RANK = 4


def product(lora, key):
    """alpha / rank * up * down, as a matrix."""
    up, down, alpha = (lora[f"{key}.{part}"].array().astype(np.float64) for part in ("lora_up.weight", "lora_down.weight",
                                                                                   "alpha"))
    return float(alpha) / len(down) * up.reshape(len(up), -1) @ down.reshape(len(down), -1)


@pytest.mark.parametrize("shape", [(96, 72), (40, 12, 5), (48, 10, 3, 3), (24, 6, 2, 3, 3)], ids=str)
def test_nothing_of_this_rank_comes_closer(mezzotint, tmp_path, rng, shape):
    w = rng.standard_normal(shape).astype(np.float32)
    tuned = (w + 0.1 * rng.standard_t(4, shape) * (rng.random(shape[1]) ** 3).reshape(-1, *[1] * (len(shape) - 2))).astype(
        np.float32)
    files = [container.write(tmp_path / f"{name}.safetensors", {"blocks.0.q.weight": container.f32(values)})
             for name, values in (("base", w), ("tuned", tuned))]
    path = tmp_path / "lora.safetensors"
    mezzotint.run("extract", *files, "-o", path, "--rank", RANK, "--alpha", 1, "--dtype", "fp32")
    difference = (tuned.astype(np.float64) - w).reshape(shape[0], -1)
    least = np.sqrt((np.linalg.svd(difference, compute_uv=False)[RANK:] ** 2).sum())
    rest = np.linalg.norm(difference - product(container.read(path).tensors, "diffusion_model.blocks.0.q"))
    assert 0.9999 * least <= rest <= 1.01 * least
    assert least < 0.98 * np.linalg.norm(difference), "a file of zeros would do, too"


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."], ids=["bare", "prefixed"])
@pytest.mark.parametrize("architecture", list(models.ARCHITECTURES))
def test_comfyui_makes_the_tuned_model_of_it(mezzotint, comfy, torch, tmp_path, caplog, architecture, prefix):
    build, _, _ = models.ARCHITECTURES[architecture]
    base = models.checkpoint(build(comfy, torch), tmp_path / "base.safetensors", prefix)
    before = container.read(base).tensors
    rng, after = np.random.default_rng(5), {}
    for name, tensor in before.items():
        values = tensor.array().astype(np.float64)
        if values.ndim >= 2 and name.endswith(".weight"):  # a change of the rank that is asked for
            up, down = rng.standard_normal((len(values), RANK)), rng.standard_normal((RANK, values[0].size))
            change = (0.02 * up @ down).reshape(values.shape)
        else:
            change = 0.1 * rng.standard_normal(values.shape)
        after[name] = (values + change).astype(np.float32)
    tuned = container.write(tmp_path / "tuned.safetensors", {n: container.f32(v) for n, v in after.items()})
    path = tmp_path / "lora.safetensors"
    mezzotint.run("extract", base, tuned, "-o", path, "--rank", RANK, "--dtype", "fp32")

    lora = comfy.utils.load_torch_file(str(path))
    patcher = comfy.sd.load_diffusion_model(str(base), model_options={"dtype": torch.float32}, disable_dynamic=True)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        merging, _ = comfy.sd.load_lora_for_models(patcher, None, lora, 1.0, 0.0)
    assert "lora key not loaded" not in caplog.text and "NOT LOADED" not in caplog.text, caplog.text
    assert set(merging.patches) == {f"diffusion_model.{name.removeprefix(prefix)}" for name in after}
    for name, expected in after.items():
        key = f"diffusion_model.{name.removeprefix(prefix)}"
        weight = torch.from_numpy(before[name].array().astype(np.float32))
        got = comfy.lora.calculate_weight(merging.patches[key], weight.clone(), key).numpy()
        assert np.abs(got - expected).max() < 1e-5, name
        assert np.abs(weight.numpy() - expected).max() > 1e-3, "nothing would be noticed"


@pytest.mark.parametrize("kind, shape", [("linear", (24, 16)), ("conv1d", (24, 16, 3)), ("conv2d", (24, 16, 3, 2)),
                                         ("conv3d", (24, 16, 2, 1, 3))])
def test_lycoris_makes_the_tuned_layer_of_it(mezzotint, lycoris, torch, tmp_path, rng, kind, shape):
    w = rng.standard_normal(shape).astype(np.float32)
    change = rng.standard_normal((shape[0], RANK)) @ rng.standard_normal((RANK, w[0].size)) / 10
    files = [container.write(tmp_path / f"{name}.safetensors", {"blocks.0.q.weight": container.f32(values)})
             for name, values in (("base", w), ("tuned", w + change.reshape(shape)))]
    path = tmp_path / "lora.safetensors"
    mezzotint.run("extract", *files, "-o", path, "--rank", RANK, "--alpha", 1, "--dtype", "fp32")
    key = "diffusion_model.blocks.0.q."
    state = {name.removeprefix(key): torch.tensor(t.array()) for name, t in container.read(path).tensors.items()}
    cls = lycoris.LoConModule
    assert set(state) <= set(cls.weight_list) and set(cls.weight_list_det) <= set(state)
    layer = adapters.torch_layer(torch, w)
    with torch.no_grad():
        module = cls.make_module_from_state_dict("x", layer, *(state.get(name) for name in cls.weight_list))
        merged = module.get_merged_weight()[0].numpy().reshape(shape)
    assert np.abs(merged - (w + change.reshape(shape))).max() < 1e-5
    assert np.abs(change).max() > 0.1, "nothing would be noticed"
