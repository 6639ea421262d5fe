"""Layers with adapters beside them: `bypass_layers` (tests/nn/layers) and ComfyUI's hooks."""

import json
import subprocess

from . import adapters, container


def run(path, folder, base, layers, inputs, runs, dtype="fp32"):
    """[layer -> output] for every run and, last, for the layers without adapters; and what was left out."""
    cases, out = folder / "cases.json", folder / "out.safetensors"
    container.write(folder / "inputs.safetensors", {name: container.f32(x) for name, x in inputs.items()})
    cases.write_text(json.dumps({"model": str(base), "inputs": str(folder / "inputs.safetensors"), "dtype": dtype,
                                 "layers": layers, "runs": runs}), encoding="utf-8")
    done = subprocess.run([path, cases, out], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    tensors = container.read(out).tensors
    return [{name: tensors[f"{index}/{name}"].array() for name in layers} for index in [*range(len(runs)), -1]], done.stderr


def hooked(torch, comfy, weight, tensors, strength, x, bias=None, **options):
    """ComfyUI's layer with an adapter in bypass: (why there is no output, output)."""
    from comfy.weight_adapter.bypass import BypassForwardHook
    try:
        patch = adapters.comfy_patch(comfy, torch, tensors)
        if not hasattr(patch, "h"):
            return "not read", None
        layer = adapters.torch_layer(torch, weight, bias, **options)
        hook = BypassForwardHook(layer, patch, strength)
        hook.inject()
        with torch.no_grad():
            return "", layer(x).double().numpy()
    except Exception as problem:  # noqa: BLE001: any of them is what the caller asks about
        return f"raises {type(problem).__name__}", None
