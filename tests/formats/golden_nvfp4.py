"""Golden bytes of nvfp4: comfy-kitchen's eager backend on the float32 weight.

Its dequantize multiplies in the dtype of the output, here float32, and gives the padded matrix; we keep what the module
would crop. Where it is faulty (weights of zeros: NaN) there are no cases.
"""
from comfy_kitchen.tensor import TensorCoreNVFP4Layout
from make_golden import case, sources

# No padding; padded rows, columns and both; more than one tile of scales across.
SHAPES = [(16, 32), (3, 17), (5, 24), (1, 33), (19, 1), (4, 16), (2, 72)]


def cases():
    for name, source in sources(12, SHAPES):
        codes, params = TensorCoreNVFP4Layout.quantize(source.float())
        rows, cols = source.shape
        decoded = TensorCoreNVFP4Layout.dequantize(codes, params)[:rows, :cols]
        tensors = {"weight": codes, "weight_scale": params.block_scale, "weight_scale_2": params.scale}
        yield case(name, "", source, tensors, decoded)
