"""comfy-kitchen's eager backend. Kept away from the two places where it is at fault (see the format's README): block
maxima a few last bits above 448 * 2^k, and blocks below 2^-118 that are not zero."""
import numpy as np
import torch
from comfy_kitchen.tensor import TensorCoreMXFP8Layout
from make_golden import case, sources

# One block and less, rows beyond the 32 of a group, columns beyond the 4 blocks of a tile.
SHAPES = [(3, 17), (33, 40), (1, 33), (35, 1), (2, 136), (4, 32)]


def power_of_two(b):
    return np.where(b == 0, 0.0, np.exp2(b.astype(np.float64) - 127)).astype(np.float32)


def tensors_of(source):
    w = source.float()
    codes, params = TensorCoreMXFP8Layout.quantize(w)
    scale = params.scale.view(torch.uint8)
    # Both faults would show here: the reference must agree with exact powers of two.
    rows, cols = w.shape
    padded = np.zeros((rows, -(-cols // 32) * 32), np.float32)
    padded[:, :cols] = np.abs(w.numpy())
    amax = padded.reshape(rows, -1, 32).max(axis=2)
    mantissa, exponent = np.frexp(amax / np.float32(448))
    b = np.where(amax == 0, 0, exponent + 127 - (mantissa == 0.5))
    assert b[amax != 0].min(initial=1) >= 1
    exact = np.repeat(b, 32, axis=1)[:, :cols]
    decoded = TensorCoreMXFP8Layout.dequantize(codes, params).float()[:rows, :cols]
    assert np.array_equal(decoded.numpy(), codes.float().numpy()[:rows, :cols] * power_of_two(exact))
    return codes, scale, decoded.contiguous()


def cases():
    for name, source in sources(31, SHAPES):
        codes, scale, decoded = tensors_of(source)
        yield case(name, "", source, {"weight": codes, "weight_scale": scale}, decoded)
