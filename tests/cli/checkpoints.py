"""Small safetensors files for tests, written and read by hand: independent of the program's own reader and writer."""
import json
import random
import struct

WIDTH = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "I8": 1, "U8": 1, "I64": 8}


def bf16(values):
    return b"".join(struct.pack("<f", value)[2:] for value in values)


def f32(*values):
    return struct.pack(f"<{len(values)}f", *values)


def write(path, tensors, metadata=None):
    """tensors: name -> (dtype, shape, bytes)."""
    header, offset, data = {}, 0, []
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(raw)]}
        offset += len(raw)
        data.append(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(data))
    return path


def read(path):
    """(tensors, metadata) as write() takes them."""
    with open(path, "rb") as file:
        raw = file.read()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + size])
    metadata = header.pop("__metadata__", {})
    base = 8 + size
    tensors = {name: (entry["dtype"], entry["shape"], raw[base + entry["data_offsets"][0]:base + entry["data_offsets"][1]])
               for name, entry in header.items()}
    return tensors, metadata


def weight(rows, cols, seed):
    noise = random.Random(seed)
    return ("BF16", [rows, cols], bf16([noise.gauss(0, 0.02) for _ in range(rows * cols)]))


def model(path, blocks=2, size=64):
    """A model of no known architecture, with layers that rules keep and one that they do not."""
    tensors = {}
    for block in range(blocks):
        for layer in ("attn.q", "mlp.up"):
            tensors[f"blocks.{block}.{layer}.weight"] = weight(size, size, f"{block}{layer}")
            tensors[f"blocks.{block}.{layer}.bias"] = ("BF16", [size], bf16([0.5] * size))
        tensors[f"blocks.{block}.norm.weight"] = ("BF16", [size], bf16([1.0] * size))
    return write(path, tensors, {"title": "a test", "ss_seed": "7"})


def legacy_fp8(path, rows=4, cols=8):
    """A scaled_fp8 file: codes 0x38 are 1.0 in e4m3."""
    return write(path, {
        "scaled_fp8": ("F8_E4M3", [0], b""),
        "blocks.0.q.weight": ("F8_E4M3", [rows, cols], b"\x38" * (rows * cols)),
        "blocks.0.q.scale_weight": ("F32", [], f32(0.5)),
        "blocks.0.q.bias": ("BF16", [rows], bf16([0.0] * rows)),
        "orphan.scale_weight": ("F32", [], f32(1.0)),
    }, {"title": "legacy"})
