"""Golden bytes of awq_w4a16: any codes, decoded by comfy-kitchen's own dequantize in float32.

The format is only read, so a case has no source values, only the shape they would have.
"""
import numpy as np
import torch
from comfy_kitchen.tensor import TensorCoreAWQW4A16Layout
from make_golden import pack


def cases():
    for i, (dtype, shape, group) in enumerate([(torch.bfloat16, (20, 128), 64), (torch.float16, (3, 64), 64),
                                               (torch.float32, (1, 192), 64), (torch.bfloat16, (16, 64), 32)]):
        rng = np.random.default_rng(60 + i)
        n, k = shape
        codes = torch.from_numpy(rng.integers(-128, 128, (n, k // 2)).astype(np.int8))
        scale = torch.from_numpy(rng.normal(0, 0.01, (k // group, n))).to(dtype)
        zeros = torch.from_numpy(rng.normal(0, 0.02, (k // group, n))).to(dtype)
        params = TensorCoreAWQW4A16Layout.Params(scale=scale.float(), zeros=zeros.float(), orig_dtype=torch.float32,
                                                 orig_shape=shape, group_size=group)
        decoded = TensorCoreAWQW4A16Layout.dequantize(codes, params)
        yield {"name": f"{dtype} group {group}".replace("torch.", ""), "options": "", "source": {"shape": list(shape)},
               "tensors": {"weight": pack(codes), "weight_scale": pack(scale), "weight_zeros": pack(zeros)},
               "decoded": decoded.contiguous().numpy().tobytes().hex()}
