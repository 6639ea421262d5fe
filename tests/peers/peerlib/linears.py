"""ComfyUI's mixed-precision Linear layers, loaded from a file."""


def state_dict(comfy, path, form=None):
    """The file as ComfyUI's loaders see it; `form` keeps one marker form only."""
    tensors, metadata = comfy.utils.load_torch_file(str(path), return_metadata=True)
    metadata = dict(metadata or {})
    if form == "metadata":
        tensors = {n: t for n, t in tensors.items() if not n.endswith(".comfy_quant")}
    elif form == "comfy_quant":
        metadata.pop("_quantization_metadata", None)
    state, _ = comfy.utils.convert_old_quants(dict(tensors), "", metadata=metadata)
    return state


def load(comfy, torch, path, sizes, *, form=None, disabled=(), dtype=None):
    """layer -> Linear for sizes {layer: (rows, columns)}; all keys must match."""
    state = state_dict(comfy, path, form)
    assert comfy.utils.detect_layer_quantization(state, "") == {"mixed_ops": True}
    ops = comfy.ops.mixed_precision_ops({}, dtype or torch.float32, disabled=disabled)
    model = torch.nn.Module()
    for name, (rows, columns) in sizes.items():
        parent = model
        *outer, leaf = name.split(".")
        for part in outer:
            if not hasattr(parent, part):
                parent.add_module(part, torch.nn.Module())
            parent = getattr(parent, part)
        bias = name + ".bias" in state
        parent.add_module(leaf, ops.Linear(columns, rows, bias=bias, device="cpu"))
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not missing, missing
    assert not unexpected, unexpected
    return {name: model.get_submodule(name) for name in sizes}
