"""mxfp8 of comfy-kitchen, and the scalar that convert_to_quant adds: the largest scale, 1 where all are zero."""
import torch
from golden_mxfp8 import power_of_two, tensors_of
from make_golden import case, sources


def cases():
    for name, source in sources(32, [(3, 17), (2, 40)]):
        codes, scale, decoded = tensors_of(source)
        scalar = torch.tensor(float(power_of_two(scale.numpy()).max()) or 1.0)
        yield case(name, "", source, {"weight": codes, "weight_scale": scale, "weight_scalar": scalar}, decoded)
