"""Reference bytes of convert_to_quant's fp8 formats with scales per row or block: its formula in numpy, the conversion
to 8 bits in torch. Codes are made with the multiplier before it is rounded into the stored scale, as there."""
import numpy as np
import torch
from make_golden import case, sources

f = np.float32


def quantize(w, down, across):
    """(codes [N, K], scales [N / down, K / across], decoded)"""
    tiles = w.reshape(w.shape[0] // down, down, w.shape[1] // across, across)
    m = np.maximum(np.abs(tiles).max(axis=(1, 3), keepdims=True), f(1e-12))
    qs = f(448) * (f(1) / m)
    codes = torch.from_numpy(np.clip(tiles * qs, f(-448), f(448))).to(torch.float8_e4m3fn)
    scale = f(1) / qs
    decoded = (codes.float().numpy() * scale).reshape(w.shape)
    return codes.reshape(w.shape), scale.reshape(scale.shape[0], scale.shape[2]), decoded


def cases(seed, grids, shape_of_scale):
    """grids: (options, weight shapes, rows and columns of a block)."""
    for options, shapes, down, across in grids:
        for name, source in sources(seed, shapes):
            w = source.float().numpy()
            codes, scale, decoded = quantize(w, down, across or w.shape[1])
            yield case(name, options, source,
                       {"weight": codes, "weight_scale": torch.from_numpy(scale.reshape(shape_of_scale(scale)).copy())},
                       torch.from_numpy(decoded.copy()))
