"""comfy-kitchen's eager quantize and dequantize on the weight of bench_formats."""
import numpy as np
import torch
from comfy_kitchen.backends import eager
from comfy_kitchen.backends.eager import convrot_w4a4, quantization, w4a8_int8

from common import Wrong

ROWS, COLS = 4096, 8192
BF16 = torch.bfloat16


def load_weight(path):
    return torch.from_numpy(np.fromfile(path, np.int16, ROWS * COLS)).view(BF16).reshape(ROWS, COLS)


def fp8(dtype):
    """As kitchen's TensorCoreFP8Layout chooses the scale."""
    def quantize(w):
        scale = (torch.amax(w.abs()) / torch.finfo(dtype).max).to(torch.float32)
        return eager.quantize_per_tensor_fp8(w, scale, dtype), scale
    return quantize, lambda q: eager.dequantize_per_tensor_fp8(*q, BF16)


def nvfp4(w):
    """As kitchen's TensorCoreNVFP4Layout chooses the scale of the tensor."""
    scale = (torch.amax(w.abs()) / (448 * 6)).to(torch.float32)
    data, blocks = eager.quantize_nvfp4(w, scale)
    return data, scale, blocks


# Our name in bench_formats: (quantize, dequantize to bf16).
CODECS = {
    "float8_e4m3fn": fp8(torch.float8_e4m3fn),
    "float8_e5m2": fp8(torch.float8_e5m2),
    "int8_tensorwise": (quantization.quantize_int8_tensorwise, lambda q: quantization.dequantize_int8_simple(*q).to(BF16)),
    "int8": (quantization.quantize_int8_rowwise, lambda q: quantization.dequantize_int8_simple(*q).to(BF16)),
    "int8_convrot": (lambda w: quantization.quantize_int8_convrot_weight(w, 256),
                     lambda q: quantization.dequantize_int8_convrot_weight(*q, 256).to(BF16)),
    "nvfp4": (nvfp4, lambda q: eager.dequantize_nvfp4(*q, BF16)),
    "mxfp8": (eager.quantize_mxfp8, lambda q: eager.dequantize_mxfp8(*q, BF16)),
    "convrot_w4a4": (convrot_w4a4.quantize_convrot_w4a4_weight,
                     lambda q: convrot_w4a4.dequantize_convrot_w4a4_weight(*q, output_dtype=BF16)),
    "asym_w4a8_int8": (w4a8_int8.quantize_w4a8_int8_weight,
                       lambda q: w4a8_int8.dequantize_w4a8_int8_weight(*q[:3], codebook=q[4], correction=q[3])),
}


def error(w, back):
    """||back - w|| / ||w||, a part at a time."""
    off = norm = 0.0
    for a, b in zip(w.split(512), back.split(512)):
        off += float((b.float() - a.float()).square().sum(dtype=torch.float64))
        norm += float(a.float().square().sum(dtype=torch.float64))
    return (off / norm) ** 0.5


class Codec:
    """A codec of kitchen's on the weight; `ours` is our error, which theirs may exceed by half and bf16's rounding."""

    def __init__(self, name, w, ours):
        self.w, (self.encode, self.decode) = w, CODECS[name]
        self.stored = self.encode(w)
        back = self.decode(self.stored)
        self.error, most = error(w, back), 1.5 * ours + 2.0 ** -8
        if not self.error <= most:
            raise Wrong(f"error {self.error:.4f}, more than {most:.4f}")
        if error(w, back.roll(1, 0)) <= most:
            raise Wrong("rows of other places pass")

    def quantize(self):
        self.encode(self.w)

    def dequantize(self):
        self.decode(self.stored)
