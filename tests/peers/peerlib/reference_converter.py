"""A converter in numpy with the output conventions of `mezzotint convert`.

run.sh --producer=reference puts it in the program's place. That run shows
that the harness accepts right files and that its negative controls fail, and
gives the comparisons with ComfyUI a second, independent file.
"""

import json
import re

import numpy as np

from . import container, oracle

DEFAULT_INCLUDE = r"blocks\.\d+\..*\.weight$"


def _quantize(w, target):
    if target in oracle.FLOAT8:
        codes, scale = oracle.quantize_float8(w, target)
        return oracle.FLOAT8[target][5], codes, scale, {"format": target}
    if target == "int8_blockwise":
        codes, scale = oracle.quantize_int8_blockwise(w, 128)
        return "I8", codes, scale, {"format": target, "group_size": 128}
    per_row = target == "int8_row"
    codes, scale = oracle.quantize_int8(w, per_row)
    mark = {"format": "int8_tensorwise"}
    if per_row:
        mark["per_row"] = True
    return "I8", codes, scale, mark


def convert(source, output, target, include=DEFAULT_INCLUDE):
    file = container.read(source)
    out, marks = {}, {}
    for name, tensor in file.tensors.items():
        layer = name.removesuffix(".weight")
        if layer == name or len(tensor.shape) != 2 or not re.search(include, name):
            out[name] = tensor
            continue
        w = np.ascontiguousarray(tensor.array(), np.float32)
        dtype, codes, scale, mark = _quantize(w, target)
        out[name] = container.Tensor(dtype, tensor.shape, codes.tobytes())
        out[layer + ".weight_scale"] = container.f32(scale)
        out[layer + ".comfy_quant"] = container.marker(mark)
        marks[layer] = mark
    metadata = dict(file.metadata)
    metadata["_quantization_metadata"] = json.dumps(
        {"format_version": "1.0", "layers": marks})
    return container.write(output, out, metadata)
