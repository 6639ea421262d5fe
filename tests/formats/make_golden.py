#!/usr/bin/env python3
"""Writes the golden bytes of the format folders: src/mezzotint/formats/<name>/golden/*.json.

A name as argument makes that one only. Needs torch 2.13 and comfy-kitchen 0.2.40 (CPU, eager backend). int8_blockwise, which kitchen lacks, comes from the
formula of its README in numpy; the plain dtypes from torch's conversions. Run it again only when a format is added: the
bytes are the reference, not a snapshot of our own code.

A file is {"made_by": text, "cases": [case, ...]}; a case is

    name      what the values are
    options   as in select_format, without the name: "scaling=row"
    source    {"dtype", "shape", "hex"}: the weight as a file would hold it
    tensors   {"weight": {...}, "weight_scale": {...}}: stored tensors, each {"dtype", "shape", "hex"}
    decoded   hex of float32 values: what the stored tensors decode to
    every     only every so many of these are kept (optional)
    marker    of a format that is only read, where its files have one (optional); such a case has a source without values

with little-endian bytes throughout.
"""
import importlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from comfy_kitchen.tensor import TensorCoreFP8Layout, TensorWiseINT8Layout

FORMATS = Path(__file__).resolve().parents[2] / "src" / "mezzotint" / "formats"
NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int8: "I8",
         torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.uint8: "U8", torch.int32: "I32"}


def pack(t):
    raw = t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if t.dim() else \
        t.reshape(1).view(torch.uint8).numpy().tobytes()
    return {"dtype": NAMES[t.dtype], "shape": list(t.shape), "hex": raw.hex()}


def weights(seed, shapes):
    """(name, float32 weight): nothing that hits a fault of the reference (all zeros, scales too small for fp8)."""
    rng = np.random.default_rng(seed)
    kinds = {
        "normal": lambda s: rng.standard_normal(s) * 0.02,
        "lognormal": lambda s: rng.standard_normal(s) * np.exp(rng.normal(0, 3, s)),
        "outlier": lambda s: np.where(np.arange(np.prod(s)).reshape(s) == np.prod(s) // 2, 1e4, rng.standard_normal(s)),
        "huge": lambda s: rng.standard_normal(s) * 1e37,
        "tiny": lambda s: rng.standard_normal(s) * 1e-31,
        "zero_row": lambda s: rng.standard_normal(s) * (np.arange(s[0]) != 1)[:, None],
        "negative_zero": lambda s: np.where(rng.random(s) < 0.4, -0.0, rng.standard_normal(s)),
    }
    for i, (kind, make) in enumerate(kinds.items()):
        shape = shapes[i % len(shapes)]
        yield kind, torch.from_numpy(np.asarray(make(shape), np.float32))


def sources(seed, shapes):
    for kind, w in weights(seed, shapes):
        yield kind, w
        if kind in ("normal", "outlier"):
            yield kind + "_bf16", w.to(torch.bfloat16)
            yield kind + "_f16", w.to(torch.float16)


SHAPES = [(3, 17), (5, 24), (1, 33), (19, 1), (4, 16), (2, 40)]


def case(name, options, source, tensors, decoded):
    return {"name": name, "options": options, "source": pack(source), "tensors": {k: pack(v) for k, v in tensors.items()},
            "decoded": decoded.float().contiguous().numpy().tobytes().hex()}


def fp8(dtype):
    for name, source in sources(8, SHAPES):
        codes, params = TensorCoreFP8Layout.quantize(source.float(), dtype=dtype)
        yield case(name, "", source, {"weight": codes, "weight_scale": params.scale}, codes.float() * params.scale)


def int8_tensorwise():
    for per_row in (False, True):
        for name, source in sources(9, SHAPES):
            codes, params = TensorWiseINT8Layout.quantize(source.float(), per_channel=per_row)
            yield case(name, "scaling=row" if per_row else "scaling=tensor", source,
                       {"weight": codes, "weight_scale": params.scale}, codes.float() * params.scale)


def int8_blockwise():
    f = np.float32
    for geometry, shape, b in [("tile", (6, 9), 3), ("tile", (2, 3), 1), ("row_group", (3, 16), 8)]:
        for name, source in sources(10, [shape]):
            w = source.float().numpy()
            down = b if geometry == "tile" else 1
            tiles = w.reshape(shape[0] // down, down, shape[1] // b, b)
            floor = f(1e-8) if geometry == "tile" else f(1e-12)
            scale = np.maximum(np.abs(tiles).max(axis=(1, 3), keepdims=True) / f(127), floor)
            codes = np.rint(np.clip(tiles / scale, f(-127), f(127))).astype(np.int8)
            decoded = (codes.astype(f) * scale).reshape(shape)
            stored = scale.reshape(scale.shape[0], scale.shape[2])
            if geometry == "row_group":
                stored = stored[..., None]
            yield case(name, f"block_size={b},geometry={geometry}", source,
                       {"weight": torch.from_numpy(codes.reshape(shape)), "weight_scale": torch.from_numpy(stored.copy())},
                       torch.from_numpy(decoded.copy()))


def plain(dtype):
    for name, source in sources(11, SHAPES):
        stored = source.to(dtype)
        yield case(name, "", source, {"weight": stored}, stored.float())


# A new format's generator is a file of its own, tests/formats/golden_<name>.py, with a function cases().
BUILT_IN = {
    "float8_e4m3fn": lambda: fp8(torch.float8_e4m3fn),
    "float8_e5m2": lambda: fp8(torch.float8_e5m2),
    "int8_tensorwise": int8_tensorwise,
    "int8_blockwise": int8_blockwise,
    "bf16": lambda: plain(torch.bfloat16),
    "fp16": lambda: plain(torch.float16),
    "fp32": lambda: plain(torch.float32),
}


def makers():
    found = dict(BUILT_IN)
    for path in sorted(Path(__file__).parent.glob("golden_*.py")):
        name = path.stem.removeprefix("golden_")
        found[name] = lambda name=name: importlib.import_module(f"golden_{name}").cases()
    return found


def main():
    known = makers()
    wanted = sys.argv[1:] or list(known)
    made_by = f"tests/formats/make_golden.py, torch {torch.__version__}, comfy-kitchen {version('comfy-kitchen')}"
    for name in wanted:
        cases = list(known[name]())
        folder = FORMATS / name / "golden"
        folder.mkdir(exist_ok=True)
        lines = ",\n".join(json.dumps(c) for c in cases)
        (folder / "reference.json").write_text(f'{{"made_by": {json.dumps(made_by)},\n"cases": [\n{lines}\n]}}\n')
        print(f"{name}: {len(cases)} cases")


if __name__ == "__main__":
    main()
