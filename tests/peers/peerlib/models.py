"""Narrow models of real architectures, built by ComfyUI's own classes."""

import zlib

import numpy as np

from . import container

SEED = 7


def _values(name, shape, rng):
    """Values that keep activations near 1, with heavy-tailed weights."""
    leaf = name.rsplit(".", 1)[-1]
    if len(shape) >= 2 and leaf == "weight":
        fan_in = int(np.prod(shape[1:]))
        return rng.standard_t(6, shape) / np.sqrt(fan_in * 1.5)
    if leaf in ("weight", "scale"):  # norms
        return 1 + 0.1 * rng.standard_normal(shape)
    return 0.1 * rng.standard_normal(shape)  # bias, modulation


def checkpoint(model, path, prefix=""):
    """Write `model`'s names and shapes with seeded bf16 values."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
        values = np.asarray(_values(name, tuple(tensor.shape), rng), np.float32)
        tensors[prefix + name] = container.bf16(values)
    return container.write(path, tensors, {"format": "pt"})


def wan(comfy, torch):
    """Wan 2.1 text-to-video, two blocks."""
    return comfy.wan.WanModel(
        model_type="t2v", in_dim=16, out_dim=16, dim=256, ffn_dim=512, num_heads=2,
        num_layers=2, text_dim=4096, device="meta", dtype=torch.float32,
        operations=comfy.ops.disable_weight_init)


def flux(comfy, torch):
    """Flux.1, one double and two single blocks."""
    return comfy.flux.Flux(
        in_channels=16, out_channels=16, vec_in_dim=64, context_in_dim=128,
        hidden_size=256, mlp_ratio=4.0, num_heads=2, depth=1, depth_single_blocks=2,
        axes_dim=[16, 56, 56], theta=10000, patch_size=2, qkv_bias=True,
        guidance_embed=True, txt_ids_dims=[], device="meta", dtype=torch.float32,
        operations=comfy.ops.disable_weight_init)


def run_wan(model, torch):
    g = torch.Generator().manual_seed(SEED)
    x = torch.randn(1, 16, 2, 8, 8, generator=g)
    context = torch.randn(1, 12, 4096, generator=g)
    return model(x, torch.tensor([500.0]), context)


def run_flux(model, torch):
    g = torch.Generator().manual_seed(SEED)
    x = torch.randn(1, 16, 8, 8, generator=g)
    context = torch.randn(1, 12, 128, generator=g)
    return model(x, torch.tensor([0.5]), context, torch.randn(1, 64, generator=g),
                 torch.tensor([3.5]))


# architecture -> (class, forward pass, layers that any preset quantizes)
ARCHITECTURES = {
    "wan": (wan, run_wan, r"^blocks\.\d+\.(self_attn\.[qkvo]|cross_attn\.[qkvo]|ffn\.[02])$"),
    "flux": (flux, run_flux,
             r"^(double_blocks\.\d+\.(img|txt)_(attn\.(qkv|proj)|mlp\.[02])"
             r"|single_blocks\.\d+\.linear[12])$"),
}
