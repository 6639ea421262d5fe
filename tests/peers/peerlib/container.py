"""safetensors files as raw bytes, independent of the safetensors package.

The comparisons must see exactly what is on disk, codes and scales alike, in
dtypes that numpy has no name for; a Tensor is therefore (dtype, shape, bytes).
"""

import json
import math
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2,
    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
}
NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4",
         "I8": "i1", "U8": "u1"}


class Tensor(NamedTuple):
    dtype: str
    shape: tuple
    data: bytes

    def array(self):
        """Values of a plain dtype; bf16 is widened to float32."""
        if self.dtype == "BF16":
            bits = np.frombuffer(self.data, "<u2").astype(np.uint32) << 16
            return bits.view(np.float32).reshape(self.shape)
        return np.frombuffer(self.data, NUMPY[self.dtype]).reshape(self.shape)

    def codes(self):
        """One byte per element, unsigned, whatever the dtype says."""
        assert ITEM_BYTES[self.dtype] == 1
        return np.frombuffer(self.data, np.uint8).reshape(self.shape)


class File(NamedTuple):
    tensors: dict
    metadata: dict


def f32(values):
    a = np.asarray(values, "<f4", order="C")
    return Tensor("F32", a.shape, a.tobytes())


def bf16(values):
    """float32 to bf16, nearest even; finite input only."""
    a = np.asarray(values, np.float32, order="C")
    bits = a.view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return Tensor("BF16", a.shape, bits.astype("<u2").tobytes())


def u8(data):
    return Tensor("U8", (len(data),), bytes(data))


def marker(value):
    """A .comfy_quant tensor."""
    return u8(json.dumps(value).encode())


def read(path):
    raw = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + length])
    metadata = header.pop("__metadata__", {})
    buffer = memoryview(raw)[8 + length:]
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        assert end - begin == math.prod(shape) * ITEM_BYTES[entry["dtype"]], name
        tensors[name] = Tensor(entry["dtype"], shape, bytes(buffer[begin:end]))
    assert sum(len(t.data) for t in tensors.values()) == len(buffer)
    return File(tensors, metadata)


def write(path, tensors, metadata=None):
    header, offset = {}, 0
    if metadata:
        header["__metadata__"] = metadata
    # Largest item first keeps every tensor aligned.
    order = sorted(tensors, key=lambda n: (-ITEM_BYTES[tensors[n].dtype], n))
    for name in order:
        t = tensors[name]
        header[name] = {"dtype": t.dtype, "shape": list(t.shape),
                        "data_offsets": [offset, offset + len(t.data)]}
        offset += len(t.data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            f.write(tensors[name].data)
    return Path(path)


def layers(file):
    """Layer name -> marker of every quantized layer, from .comfy_quant."""
    suffix = ".comfy_quant"
    return {n[:-len(suffix)]: json.loads(t.data)
            for n, t in file.tensors.items() if n.endswith(suffix)}


def metadata_layers(file):
    """The same from the file-level metadata."""
    text = file.metadata.get("_quantization_metadata")
    return json.loads(text)["layers"] if text else {}
