"""Golden bytes of int8_tensorwise: make_golden's without rotation, and rotated ones.

kitchen rotates with a float32 matrix product, whose order of additions is the library's; so these weights are made such
that every sum is exact in any order: small integers over sqrt(group), with a largest rotated value of 127 * 2^k in every
row, which makes the scale a power of two and the way back exact too.
"""
import numpy as np
import torch
from comfy_kitchen.tensor import TensorWiseINT8Layout
from make_golden import case, int8_tensorwise

H4 = np.array([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]])


def signs(group):
    h = np.ones((1, 1), int)
    while len(h) < group:
        h = np.kron(h, H4)
    return h


def weight(rng, rows, groups, group, kind):
    """Integer codes in the rotated space, rotated: exact in float32, and in bfloat16 and float16 for few codes."""
    codes = np.zeros((rows, groups, group), int)
    if kind == "dense":
        codes = rng.integers(-127, 128, codes.shape)
    else:
        for row in codes.reshape(-1, group):
            row[rng.integers(0, group, 3)] = rng.integers(-40, 41, 3)
    if kind != "zero_row":
        codes[:, 0, :] = np.where(codes[:, 0, :] == 127, 1, codes[:, 0, :])
        codes[:, 0, rng.integers(group)] = np.where(np.arange(rows) % 2, 127, -127)
    w = (codes @ signs(group)).reshape(rows, -1) / group ** 0.5 * 2.0 ** rng.integers(-9, 3, (rows, 1))
    if kind == "zero_row":
        w[0] = 0
        w[1:, 0] = 127 * 2.0 ** -3
        w[1:, 1:] = 0
    return torch.from_numpy(w.astype(np.float32))


def cases():
    yield from int8_tensorwise()
    rng = np.random.default_rng(44)
    for group, rows, groups in [(4, 5, 6), (16, 3, 3), (64, 2, 1), (256, 1, 1)]:
        for kind in ("dense", "sparse", "zero_row") if rows > 1 else ("dense", "sparse"):
            w = weight(rng, rows, groups, group, kind)
            sources = {"": w} if kind == "dense" else {"": w, "_bf16": w.bfloat16(), "_f16": w.half()}
            for suffix, source in sources.items():
                assert torch.equal(source.float(), w)
                if group > 64 and suffix == "_f16":
                    continue
                codes, params = TensorWiseINT8Layout.quantize(source.float(), per_channel=True, convrot=True,
                                                              convrot_groupsize=group)
                decoded = TensorWiseINT8Layout.dequantize(codes, params)
                yield case(f"{kind}{suffix}", f"convrot=true,convrot_groupsize={group}", source,
                           {"weight": codes, "weight_scale": params.scale}, decoded)
