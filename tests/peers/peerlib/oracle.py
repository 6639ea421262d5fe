"""The formats in numpy, written from the specification for these tests.

Rounding to fp8 searches a table of all code values in float64, so it shares
nothing with the bit manipulation of the program under test.
"""

import numpy as np

F = np.float32
E4M3_MAX = 448.0
E5M2_MAX = 57344.0
INT8_MIN_SCALE = F(1e-30)

FLOAT8 = {"float8_e4m3fn": (4, 3, 7, 0x7E, E4M3_MAX, "F8_E4M3"),
          "float8_e5m2": (5, 2, 15, 0x7B, E5M2_MAX, "F8_E5M2")}


def _magnitudes(exp_bits, mant_bits, bias, last):
    out = []
    for code in range(last + 1):
        e, m = code >> mant_bits, code & ((1 << mant_bits) - 1)
        if e == 0:
            out.append(m * 2.0 ** (1 - bias - mant_bits))
        else:
            out.append((1 + m / 2 ** mant_bits) * 2.0 ** (e - bias))
    return np.array(out)


TABLES = {name: _magnitudes(*row[:4]) for name, row in FLOAT8.items()}


def encode_float8(y, name):
    """Nearest even with saturation; the sign bit is kept, for zeros too."""
    table = TABLES[name]
    a = np.minimum(np.abs(y.astype(np.float64)), table[-1])
    low = np.searchsorted(table, a, side="right") - 1
    high = np.minimum(low + 1, len(table) - 1)
    middle = (table[low] + table[high]) / 2
    up = (a > middle) | ((a == middle) & (low % 2 == 1))
    code = np.where(up, high, low).astype(np.uint8)
    return code | (np.signbit(y).astype(np.uint8) << 7)


def decode_float8(codes, name):
    magnitude = codes & 0x7F
    assert magnitude.max(initial=0) < len(TABLES[name]), "inf or NaN code"
    value = TABLES[name][magnitude]
    return np.where(codes & 0x80, -value, value)


def amax(w, axis=None):
    return np.max(np.abs(w), axis=axis, keepdims=axis is not None).astype(F)


def float8_scale(w, name):
    return F(amax(w) / F(FLOAT8[name][4]))


def reciprocal_overflows(scale):
    """Where comfy-kitchen's 1/scale is infinite: its codes are +-max and NaN."""
    return scale <= F(2.0 ** -128)


def quantize_float8(w, name):
    top = F(FLOAT8[name][4])
    scale = float8_scale(w, name)
    if reciprocal_overflows(scale):
        scale = F(1) if scale == 0 and not w.any() else F(2.0 ** -126)
    y = np.clip(w * (F(1) / scale), -top, top)
    return encode_float8(y, name), scale


def quantize_int8(w, per_row):
    scale = np.maximum(amax(w, 1 if per_row else None) / F(127), INT8_MIN_SCALE)
    return np.clip(np.rint(w / scale), -128, 127).astype(np.int8), scale


def quantize_int8_blockwise(w, block):
    rows, cols = w.shape
    tiles = w.reshape(rows // block, block, cols // block, block)
    top = np.max(np.abs(tiles), axis=(1, 3), keepdims=True).astype(F)
    scale = np.maximum(top / F(127), F(1e-8))
    codes = np.rint(np.clip(tiles / scale, -127, 127)).astype(np.int8)
    return codes.reshape(rows, cols), scale[:, 0, :, 0]


def dequantize(layer, tensors, mark):
    """float64 weight of a stored layer."""
    weight = tensors[layer + ".weight"]
    scale = tensors[layer + ".weight_scale"].array().astype(np.float64)
    name = mark["format"]
    if name in FLOAT8:
        return decode_float8(weight.codes(), name) * scale
    codes = weight.array().astype(np.float64)
    if name == "int8_tensorwise":
        return codes * scale
    if name == "int8_blockwise":
        block = weight.shape[0] // scale.shape[0]
        return codes * np.kron(scale, np.ones((block, block)))
    raise ValueError(name)


def hadamard(size):
    """ConvRot's matrix from its closed form: -1 for every pair of base-4 digits that sums to 3."""
    i, j = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    sign = np.ones((size, size))
    for digit in range(int(round(np.log(size) / np.log(4)))):
        sign *= np.where((i // 4 ** digit) % 4 + (j // 4 ** digit) % 4 == 3, -1, 1)
    return sign / np.sqrt(size)


def rotate(values, group=256):
    shape = values.shape
    return (values.reshape(-1, group) @ hadamard(group)).reshape(shape)


def blocks(w, size):
    """Blocks of `size` along the last dimension, padded with zeros: [rows, blocks, size]."""
    padded = np.pad(w, ((0, 0), (0, -w.shape[1] % size)))
    return padded.reshape(len(w), -1, size)


def _float8_step(y, exp_bits, mant_bits, bias):
    exponent = np.floor(np.log2(np.maximum(np.abs(y), 2.0 ** (1 - bias))))
    return 2.0 ** (exponent - mant_bits)


def _nvfp4_step(w):
    parts = blocks(w, 16)
    # An e4m3 scale is at most 1/16 above the wanted one.
    scale = np.abs(parts).max(axis=2, keepdims=True) / 6 * (1 + 2.0 ** -4)
    y = np.abs(parts) / np.maximum(scale, 1e-300)
    return np.where(y < 2, 0.5, np.where(y < 4, 1, 2)) * scale


def _mxfp8_step(w):
    parts = blocks(w, 32)
    amax = np.maximum(np.abs(parts).max(axis=2, keepdims=True), 1e-300)
    scale = 2.0 ** np.ceil(np.log2(amax / 448))
    return _float8_step(parts / scale, 4, 3, 7) * scale


def _w4a8_step(w):
    # Sixteen levels; the widest gap of the published codebook is 0.186 of the group's amax.
    return np.abs(blocks(rotate(w), 16)).max(axis=2, keepdims=True) * 0.186


STEPS = {
    "int8_row": lambda w: np.abs(w).max(axis=1, keepdims=True) / 127,
    "int8_convrot": lambda w: np.abs(rotate(w)).max(axis=1, keepdims=True) / 127,
    "convrot_w4a4": lambda w: np.abs(rotate(w)).max(axis=1, keepdims=True) / 7,
    "asym_w4a8_int8": _w4a8_step,
    "nvfp4": _nvfp4_step,
    "mxfp8": _mxfp8_step,
}


def step_rms(w, fmt):
    """rms of the rounding error that the format must have on w: step/sqrt(12).

    Derived from w and the published scale rule alone, so that a wrong stored
    scale cannot widen the bound.
    """
    w = w.astype(np.float64)
    if fmt in FLOAT8:
        exp_bits, mant_bits, bias, _, top, _ = FLOAT8[fmt]
        scale = np.abs(w).max() / top
        step = _float8_step(w / scale, exp_bits, mant_bits, bias) * scale
    elif fmt in STEPS:
        step = STEPS[fmt](w)
    else:
        step = np.abs(w).max() / 127
    return float(np.sqrt(np.mean(np.square(step)) / 12))
