"""ComfyUI custom node that teaches it the format toy_int4: copy this folder into custom_nodes/.

ComfyUI looks formats up in QUANT_ALGOS, but its loader has a branch per name, so a new one needs three things: a layout
(how to dequantize), an entry in the table, and a loader that builds the layout's parameters from the file's tensors.
Every operation without a kernel of its own dequantizes, so nothing more is needed to run.
"""
import json
from dataclasses import dataclass

import comfy.ops
import torch
from comfy.quant_ops import QUANT_ALGOS, QuantizedLayout, QuantizedTensor
from comfy_kitchen.tensor.base import BaseLayoutParams, dequantize_args, register_layout_class, register_layout_op

NAME, LAYOUT = "toy_int4", "ToyInt4Layout"


class ToyInt4Layout(QuantizedLayout):
    """weight = nibble * (scale * row_scale), then the inverse rotation: see toy_int4/README.md."""

    @dataclass(frozen=True)
    class Params(BaseLayoutParams):
        row_scale: torch.Tensor = None
        rotate: bool = False

        def _tensor_fields(self):
            return ["scale", "row_scale"]

    @classmethod
    def quantize(cls, tensor, **kwargs):
        raise NotImplementedError("weights are quantized by mezzotint")

    @classmethod
    def dequantize(cls, qdata, params):
        n, k = params.orig_shape
        nibbles = torch.stack((qdata & 15, qdata >> 4), dim=-1).reshape(qdata.shape[0], -1)[:n, :k]
        codes = (nibbles ^ 8).float() - 8
        w = codes * (params.scale * params.row_scale.float())
        if params.rotate:
            even = k // 2 * 2
            a, b = w[:, 0:even:2].clone(), w[:, 1:even:2].clone()
            w[:, 0:even:2], w[:, 1:even:2] = (a + b) * 0.5 ** 0.5, (a - b) * 0.5 ** 0.5
        return w.to(params.orig_dtype)

    @classmethod
    def get_plain_tensors(cls, qtensor):
        return qtensor._qdata, qtensor._params.scale, qtensor._params.row_scale

    @classmethod
    def state_dict_tensors(cls, qdata, params):
        return {"": qdata, "_scale": params.row_scale, "_scale_2": params.scale}


register_layout_class(LAYOUT, ToyInt4Layout)
QUANT_ALGOS[NAME] = {"storage_t": torch.uint8, "parameters": {"weight_scale", "weight_scale_2"},
                     "comfy_tensor_layout": LAYOUT, "quantize_input": False}


@register_layout_op(torch.ops.aten.linear.default, ToyInt4Layout)
def _linear(qt, args, kwargs):
    return torch.nn.functional.linear(*dequantize_args(args), **dequantize_args(kwargs))


_load = comfy.ops._load_quantized_module


def _load_toy(module, super_load, state_dict, prefix, *args, **kwargs):
    marker = state_dict.get(prefix + "comfy_quant")
    if marker is None or (conf := json.loads(marker.numpy().tobytes())).get("format") != NAME:
        return _load(module, super_load, state_dict, prefix, *args, **kwargs)
    weight, row_scale, scale, _ = (state_dict.pop(prefix + name) for name in
                                   ("weight", "weight_scale", "weight_scale_2", "comfy_quant"))
    device, dtype = module.factory_kwargs["device"], module.factory_kwargs["dtype"]
    module.quant_format, module.layout_type = NAME, LAYOUT
    params = ToyInt4Layout.Params(scale=scale.to(device), orig_dtype=dtype, orig_shape=module._orig_shape,
                                  row_scale=row_scale.to(device), rotate=conf.get("rotate", False))
    module.weight = torch.nn.Parameter(QuantizedTensor(weight.to(device), LAYOUT, params), requires_grad=False)
    missing_keys = args[2]
    super_load(state_dict, prefix, *args)
    if prefix + "weight" in missing_keys:
        missing_keys.remove(prefix + "weight")


comfy.ops._load_quantized_module = _load_toy

NODE_CLASS_MAPPINGS = {}
