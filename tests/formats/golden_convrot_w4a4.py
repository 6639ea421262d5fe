"""Golden bytes of convrot_w4a4 from comfy-kitchen's eager backend.

Weights are whole multiples of 7 * 2^n, so that every sum of the rotation is exact, there and back (scales are amax /
7), and the order in which an implementation adds does not matter: the same bits from a matrix product (kitchen) and
from butterflies (ours).
"""
import numpy as np
import torch
from comfy_kitchen.tensor import TensorCoreConvRotW4A4Layout
from make_golden import case


def exact_weights(seed, shape):
    """(name, float32 weight) whose rotation is exact in float32."""
    rng = np.random.default_rng(seed)
    yield "integers", rng.integers(-18, 19, shape) * 2.0 ** -10
    yield "heavy_tails", np.where(rng.random(shape) < 0.02, 40, 1) * rng.integers(-20, 21, shape) * 2.0 ** -9
    yield "zero_row", rng.integers(-9, 10, shape) * (np.arange(shape[0]) != 1)[:, None] * 0.25
    yield "one_weight", (np.arange(np.prod(shape)).reshape(shape) == np.prod(shape) // 2) * 3.0
    yield "tiny", rng.integers(-64, 65, shape) * 2.0 ** -40
    yield "huge", rng.integers(-64, 65, shape) * 2.0 ** 108


def exact_cases():
    for group, shape in ((256, (2, 256)), (64, (2, 64)), (16, (1, 64)), (4, (3, 64))):
        for name, values in exact_weights(40 + group, shape):
            if group == 256 or name in ("integers", "heavy_tails"):
                yield group, name, torch.from_numpy(np.asarray(values * 7, np.float32))


def cases():
    for group, name, w in exact_cases():
        sources = [(name, w)]
        if name == "integers":
            sources += [(name + "_bf16", w.to(torch.bfloat16)), (name + "_f16", w.to(torch.float16))]
        for label, source in sources:
            assert torch.equal(source.float(), w)
            codes, params = TensorCoreConvRotW4A4Layout.quantize(w, convrot_groupsize=group)
            decoded = TensorCoreConvRotW4A4Layout.dequantize(codes, params)
            yield case(label, f"convrot_groupsize={group}", source, {"weight": codes, "weight_scale": params.scale}, decoded)
