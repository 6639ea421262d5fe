"""Adapters of every algorithm on layers of every kind, and what other programs make of them.

Cases and closed forms are the golden ones of tests/adapter (make_golden.py): float64 numpy, written from the papers'
formulas.
"""

import json
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import container

GOLDEN = Path(__file__).resolve().parents[2] / "adapter" / "golden"
BASE = "model.diffusion_model."
STEM = "diffusion_model."


class Case(NamedTuple):
    name: str        # "lora conv2d core"
    layer: str       # "layers.12"
    weight: np.ndarray
    tensors: dict    # suffix -> float64
    strength: float
    metadata: dict
    expected: np.ndarray

    @property
    def algorithm(self):
        return self.name.split()[0]

    @property
    def kind(self):
        return self.name.split()[1]

    @property
    def label(self):
        return " ".join(self.name.split()[2:])


def _values(tensor):
    return np.array(tensor["values"], np.float64).reshape(tensor["shape"]) / 64


def cases():
    found = []
    for path in sorted(GOLDEN.glob("*.json")):
        for case in json.loads(path.read_text(encoding="utf-8"))["cases"]:
            weight = _values(case["weight"])
            expected = np.frombuffer(bytes.fromhex(case["expected"]), "<f4").reshape(weight.shape)
            found.append(Case(case["name"], f"layers.{len(found)}", weight,
                              {suffix: _values(tensor) for suffix, tensor in case["tensors"].items()}, case["strength"],
                              case.get("metadata", {}), expected.astype(np.float64)))
    assert len({case.name for case in found}) == len(found) > 100
    return found


def write_base(path, some, make=container.f32, bias=None):
    """The cases' weights as one model."""
    tensors = {f"{BASE}{case.layer}.weight": make(case.weight) for case in some}
    if bias is not None:
        tensors.update({f"{BASE}{case.layer}.bias": make(bias) for case in some})
    return container.write(path, tensors)


def write_adapter(path, some):
    """Their adapters as one file; all must have the same metadata."""
    tensors = {STEM + case.layer + suffix: container.f32(value) for case in some for suffix, value in case.tensors.items()}
    return container.write(path, tensors, some[0].metadata)


def groups(some):
    """Cases that one merge can do: of the same strength and metadata."""
    found = {}
    for case in some:
        found.setdefault((case.strength, bool(case.metadata)), []).append(case)
    return list(found.values())


def error(got, expected):
    return float(np.abs(np.asarray(got, np.float64) - expected).max() / np.abs(expected).max())


def torch_state(torch, tensors, stem):
    return {stem + suffix: torch.tensor(value, dtype=torch.float32) for suffix, value in tensors.items()}


class ErrorsOf:
    """Whether anything logs an error meanwhile; ComfyUI's adapters log what they throw and go on."""

    def __enter__(self):
        self.messages = []
        self.handler = logging.Handler(logging.ERROR)
        self.handler.emit = lambda record: self.messages.append(record.getMessage())
        logging.getLogger().addHandler(self.handler)
        return self

    def __exit__(self, *_):
        logging.getLogger().removeHandler(self.handler)


def comfy_patch(comfy, torch, tensors):
    """What ComfyUI's loader makes of an adapter for the layer x, or None."""
    return comfy.lora.load_lora(torch_state(torch, tensors, "x"), {"x": "x.weight"}).get("x.weight")


def comfy_merge(comfy, torch, weight, tensors, strength, dtype=None):
    """("right" to be found out: merged) or (why there is nothing to compare, None)."""
    try:
        patch = comfy_patch(comfy, torch, tensors)
        if patch is None:
            return "not read", None
        with ErrorsOf() as errors:
            got = comfy.lora.calculate_weight([(strength, patch, 1.0, None, None)],
                                              torch.tensor(weight, dtype=dtype or torch.float32), "x.weight")
    except Exception as problem:  # noqa: BLE001: any of them is what the caller asks about
        return f"raises {type(problem).__name__}", None
    return "dropped" if errors.messages else "", got.double().numpy()


def torch_layer(torch, weight, bias=None, **options):
    weight = torch.tensor(weight, dtype=torch.float32)
    groups = options.get("groups", 1)
    if weight.ndim == 2:
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    else:
        cls = getattr(torch.nn, f"Conv{weight.ndim - 2}d")
        layer = cls(weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]), bias=bias is not None, **options)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias, dtype=torch.float32))
    return layer.requires_grad_(False)
