"""Golden bytes of int8_quip: any codes, and what the formulas of the format's README make of them in float64:

    weight = crop(diag(sign_row) S(N2) (code * scale) S(K2) diag(sign_col)) / smooth_factors,  S(n) = Sylvester / sqrt(n)
    weight = U (code * scale) V^T                                            older files; signs: two diagonal matrices

Scales, factors and the roots of the sizes are powers of two and the matrices hold few bits, so that float32 has every
sum exactly, whatever its order. The format is only read: a case has no source values.
"""
import numpy as np
import torch
from make_golden import pack


def sylvester(n):
    h = np.ones((1, 1))
    while len(h) < n:
        h = np.block([[h, h], [h, -h]])
    return h / np.sqrt(n)


def powers(rng, count):
    return 2.0 ** rng.integers(-9, -5, count)


def case(name, tensors, weight):
    decoded = weight.astype(np.float32)
    assert np.array_equal(decoded, weight)
    return {"name": name, "options": "", "source": {"shape": list(weight.shape)},
            "marker": {"format": "int8_tensorwise", "orig_shape": list(weight.shape)},
            "tensors": {k: pack(torch.from_numpy(np.asarray(v))) for k, v in tensors.items()},
            "decoded": decoded.tobytes().hex()}


def cases():
    f, rng = np.float32, np.random.default_rng(80)
    signs = lambda n: rng.choice([-1.0, 1.0], n)
    for shape, padded, row_scales, extra in [((4, 16), (4, 16), False, ""), ((11, 40), (16, 64), True, "sizes"),
                                             ((3, 13), (4, 16), True, "smooth"), ((1, 4), (1, 4), False, "smooth sizes")]:
        n, k = padded
        codes = rng.integers(-128, 128, padded).astype(np.int8)
        scale = powers(rng, (n, 1)) if row_scales else powers(rng, ())
        row, col = signs(n), signs(k)
        weight = row[:, None] * (sylvester(n) @ (codes * scale) @ sylvester(k)) * col
        weight = weight[:shape[0], :shape[1]]
        tensors = {"weight": codes, "weight_scale": f(scale), "sign_row": f(row), "sign_col": f(col)}
        if "sizes" in extra:
            tensors |= {"hadamard_quip": np.int8(1), "hadamard_size_out": np.int32(n), "hadamard_size_in": np.int32(k)}
        if "smooth" in extra:
            smooth = 2.0 ** rng.integers(-3, 4, shape[1])
            tensors["smooth_factors"] = f(smooth)
            weight = weight / smooth
        yield case(f"{shape} in {padded} {extra}".strip(), tensors, weight)
    for kind in ("dense", "signs"):
        n, k = 5, 12
        codes = rng.integers(-128, 128, (n, k)).astype(np.int8)
        scale = powers(rng, (n, 1))
        u, v = [signs(m) if kind == "signs" else rng.integers(-4, 5, (m, m)) / 8 for m in (n, k)]
        full = [np.diag(m) if kind == "signs" else m for m in (u, v)]
        tensors = {"weight": codes, "weight_scale": f(scale), "quip_s_u": f(u), "quip_s_v": f(v)}
        yield case(f"older file, {kind}", tensors, full[0] @ (codes * scale) @ full[1].T)
