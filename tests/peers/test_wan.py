"""models/wan against ComfyUI's own comfy/ldm/wan/model.py, on random weights of its names and shapes."""
import importlib
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

PROGRAM = Path(os.environ.get("MEZZOTINT", "build/bin/mezzotint")).with_name("mezzotint-run")
SMALL = dict(dim=256, ffn_dim=512, freq_dim=64, text_dim=96, num_heads=2, num_layers=2)
WIDE_5B = dict(dim=3072, ffn_dim=14336, freq_dim=256, text_dim=4096, num_heads=24, num_layers=1, in_dim=48, out_dim=48)
WIDE_14B = dict(dim=5120, ffn_dim=13824, freq_dim=256, text_dim=4096, num_heads=40, num_layers=1)


def random_model(**config):
    generator = torch.Generator().manual_seed(0)
    model = importlib.import_module("comfy.ldm.wan.model").WanModel(
        **config, dtype=torch.float32, device="cpu",
        operations=importlib.import_module("comfy.ops").disable_weight_init)
    with torch.no_grad():
        for name, p in model.named_parameters():
            scale = 0.5 if "modulation" in name else 1.0 if p.ndim == 1 and "norm" in name else p.shape[-1] ** -0.5
            p.copy_(torch.randn(p.shape, generator=generator) * scale)
    return model.eval()


@pytest.mark.parametrize("config, size", [
    (SMALL, (2, 3, 6, 8)), (dict(SMALL, cross_attn_norm=False), (1, 2, 5, 7)),  # sizes that no patch fills
    (WIDE_5B, (1, 1, 8, 8)), (WIDE_14B, (1, 1, 8, 8))])
def test_the_same_velocity(comfy, tmp_path, config, size):
    model = random_model(**config)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size[0], config.get("in_dim", 16), *size[1:], generator=generator)
    timestep = torch.linspace(970, 13, size[0])
    context = torch.randn(size[0], 9, config["text_dim"], generator=generator)
    with torch.no_grad():
        expected = model(x, timestep, context)
    save_file({name: p.contiguous() for name, p in model.state_dict().items()}, tmp_path / "model.safetensors")
    save_file({"x": x, "timestep": timestep, "context": context}, tmp_path / "inputs.safetensors")
    subprocess.run([PROGRAM, "wan", tmp_path / "model.safetensors", tmp_path / "inputs.safetensors", "-o",
                    tmp_path / "out.safetensors", "--dtype", "fp32"], check=True)
    out = load_file(tmp_path / "out.safetensors")["out"]
    assert out.shape == expected.shape
    assert (out - expected).norm() / expected.norm() <= 1e-5
