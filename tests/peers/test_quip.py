"""Files of the QuIP fork's --quip-store-transformed, made here by its formula, become loadable ones. (The fork itself is not
run.)"""

import numpy as np
import pytest

from peerlib import container


def sylvester(n):
    h = np.ones((1, 1))
    while len(h) < n:
        h = np.block([[h, h], [h, -h]])
    return h / np.sqrt(n)


def integer(value, dtype):
    a = np.array(value, {"I8": "i1", "I32": "<i4"}[dtype])
    return container.Tensor(dtype, (), a.tobytes())


def transformed(rng, name, shape, smooth):
    """A random weight, and the tensors that stand for it."""
    rows, cols = shape
    padded = [1 << (n - 1).bit_length() for n in shape]
    weight = rng.standard_normal(shape) * 0.02
    factors = rng.uniform(0.3, 3, cols) if smooth else np.ones(cols)
    sign_row, sign_col = (rng.choice([-1.0, 1.0], n) for n in padded)
    w = np.zeros(padded)
    w[:rows, :cols] = weight * factors
    w = sylvester(padded[0]) @ (sign_row[:, None] * w * sign_col) @ sylvester(padded[1])
    scale = np.abs(w).max(1, keepdims=True) / 127
    codes = np.rint(w / scale).astype(np.int8)
    tensors = {"weight": container.Tensor("I8", codes.shape, codes.tobytes()), "weight_scale": container.f32(scale),
               "sign_row": container.f32(sign_row), "sign_col": container.f32(sign_col),
               "hadamard_quip": integer(1, "I8"), "hadamard_size_out": integer(padded[0], "I32"),
               "hadamard_size_in": integer(padded[1], "I32"), "bias": container.f32(np.zeros(rows)),
               "comfy_quant": container.marker({"format": "int8_tensorwise"})}
    if smooth:
        tensors["smooth_factors"] = container.f32(factors)
    return weight, {f"{name}.{suffix}": t for suffix, t in tensors.items()}


@pytest.mark.parametrize("target", ["fp32", "int8_convrot"])
def test_becomes_loadable(mezzotint, rng, tmp_path, target):
    weights, tensors = {}, {}
    for name, shape, smooth in [("blocks.0.q", (300, 512), False), ("blocks.0.k", (700, 300), True)]:
        weights[name], stored = transformed(rng, name, shape, smooth)
        tensors.update(stored)
    source = container.write(tmp_path / "in.safetensors", tensors)
    assert "stored transformed" in mezzotint.run("verify", source, expect=3)
    output = tmp_path / "out.safetensors"
    mezzotint.convert(source, target, output, include=r"\.weight$")
    mezzotint.run("verify", output)
    plain = mezzotint.convert(output, "fp32", tmp_path / "plain.safetensors", include=r"\.weight$")
    assert set(plain.tensors) == {f"{n}.{s}" for n in weights for s in ("weight", "bias")}
    for name, weight in weights.items():
        got = plain.tensors[name + ".weight"].array()
        assert got.shape == weight.shape
        error = np.linalg.norm(got - weight) / np.linalg.norm(weight)
        assert error < 0.015, name
        assert np.linalg.norm(-got - weight) > np.linalg.norm(weight)  # control
