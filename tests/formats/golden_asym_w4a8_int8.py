"""Golden bytes of asym_w4a8_int8 from comfy-kitchen's eager backend.

Weights are whole multiples of a power of two, so that the rotation is exact in any order of additions. Kitchen's codes
of the evenly spaced forms (uniform, asymmetric) come from scales that are rounded only afterwards; ours are the nearest
levels of the scales that are stored, so the codes of those forms come from a search over all levels here, and kitchen's
must not be nearer to the weight. Decoded values are made by the formula: what kitchen gives, but for the order of
additions when it rotates back.
"""
import numpy as np
import torch
from comfy_kitchen.backends.eager import w4a8_int8 as kitchen
from comfy_kitchen.backends.eager.quantization import rotate_int8_convrot_weight
from comfy_kitchen.tensor.w4a8_packed import _FIXED_LUT
from golden_convrot_w4a4 import exact_weights
from make_golden import case


def butterflies(x, group):
    """The rotation as src/mezzotint/kernel/hadamard.h defines it: scale, then radix-4 steps from the nearest columns."""
    f = np.float32
    y = (x.reshape(-1, group) * f(group ** -0.5)).astype(f)
    stride = 1
    while stride < group:
        y = y.reshape(-1, group // (4 * stride), 4, stride)
        a, b, c, d = (y[:, :, i] for i in range(4))
        y = np.stack(radix4(a, b, c, d), axis=2).astype(f)
        stride *= 4
    return y.reshape(x.shape)


def radix4(a, b, c, d):
    p, m, q, n = a + b, a - b, c + d, c - d
    return p + n, p - n, m + q, q - m


def level_table(base, s_rel):
    return np.clip(np.rint(base[None, None, :] * s_rel[:, :, None]), -127, 127).astype(np.float32)


def nearest(target, levels):
    """Index of the nearest level of every weight; the lower, and the first of equal ones."""
    distance = np.abs(target[..., None].astype(np.float64) - levels[:, :, None, :])
    return distance.argmin(-1)


FORMS = {"codebook": {}, "uniform": {"codebook": False}, "asymmetric": {"symmetric": False}, "six_bit": {"bits": 6}}


def one(label, form, gs, group, source):
    w = source.float()
    fixed = torch.tensor(_FIXED_LUT) if form == "codebook" else None
    packed, s_rel, s_channel, correction, table = kitchen.quantize_w4a8_int8_weight(
        w, group_size=gs, convrot_groupsize=group, codebook_tensor=fixed, **FORMS[form])
    bits = 6 if form == "six_bit" else 4
    n, k = w.shape
    rotated = rotate_int8_convrot_weight(w, group).numpy().reshape(n, k // gs, gs)
    base = np.arange(64, dtype=np.float32) - 32 if bits == 6 else np.arange(16, dtype=np.float32) - 8
    if table is not None:
        base = table.numpy()
    levels = level_table(base, s_rel.float().numpy())
    sc = s_channel.numpy()[:, None, None]
    shift = np.float32(0) if correction is None else correction.numpy().T[:, :, None]
    value = lambda codes: np.take_along_axis(levels, codes, 2) * sc + shift
    codes = kitchen._unpack_codes(packed, k, bits).numpy().reshape(rotated.shape)
    if form in ("uniform", "asymmetric"):
        best = nearest((rotated - shift) / sc, levels)
        assert np.square(value(best) - rotated).sum() <= np.square(value(codes) - rotated).sum() * (1 + 1e-6)
        packed = kitchen._pack_codes(torch.from_numpy(best.reshape(n, k).astype(np.int32)), bits)
        codes = best
    decoded = butterflies(value(codes).astype(np.float32).reshape(n, k), group)
    theirs = kitchen.dequantize_w4a8_int8_weight(packed, s_rel, s_channel, table, correction, gs, group, torch.float32)
    assert np.abs(decoded - theirs.numpy()).max() <= 1e-5 * np.abs(decoded).max()
    tensors = {"weight": packed, "weight_s_rel": s_rel, "weight_s_channel": s_channel}
    if table is not None:
        tensors["weight_codebook"] = table
    if correction is not None:
        tensors["weight_correction"] = correction
    return case(label, f"codes={form},group_size={gs},convrot_groupsize={group}", source, tensors,
                torch.from_numpy(decoded.copy()))


def cases():
    for form in FORMS:
        for gs, group, shape in ((16, 256, (1, 256)), (32, 64, (2, 64)), (4, 16, (2, 32))):
            if form == "six_bit" and gs < 16:
                continue
            for name, values in exact_weights(70 + gs, shape):
                if name in ("tiny", "huge") or (gs != 16 and name != "integers"):
                    continue
                yield one(name, form, gs, group, torch.from_numpy(np.asarray(values, np.float32)))
