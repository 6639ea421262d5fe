"""torch's and comfy-kitchen's matrix products on the weights and activations of bench_gemm.

Each peer is made for a shape and a batch, runs on rotating weights so that they come from memory, and is checked on some
elements against float64; the control is the product with other weights, which the check must refuse.
"""
import numpy as np
import torch
import torch.nn.functional as F
from comfy_kitchen.backends import eager
from comfy_kitchen.backends.eager import quantization as kitchen
from comfy_kitchen.backends.eager.convrot_w4a4 import prepare_int4_weight_for_int8_linear

from common import Wrong

POOL = 256 << 20
BEYOND_CACHES = 160 << 20
SCALE = 0.005
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=torch.float64)


class Inputs:
    """The file of `bench_gemm --inputs FILE COUNT`."""

    def __init__(self, path, count):
        self.pool = torch.from_numpy(np.fromfile(path, np.uint8, POOL))
        self.floats = torch.from_numpy(np.fromfile(path, np.int16, count, offset=POOL)).view(torch.bfloat16)
        self.codes = torch.from_numpy(np.fromfile(path, np.int8, count, offset=POOL + 2 * count))

    def bytes(self, count, index):
        """The index-th piece of the pool, as Rotation::next takes them."""
        step = (count + 4095) // 4096 * 4096
        pieces = max(1, (POOL - count) // step + 1)
        at = index % pieces * step
        return self.pool[at:at + count]


# --- weights: (operands of one matrix, its values as float64 for some rows) -------------------------------------------

def finite(data):
    """Without bit 6: no code is NaN or inf. bench_gemm does the same."""
    return data & 0xBF


def int8_weight(inputs, n, k, i):
    return (inputs.bytes(n * k, i).view(torch.int8).reshape(n, k),)


def int8_rows(w, rows):
    return w[0][rows].double()


def dense_weight(dtype):
    return lambda inputs, n, k, i: ((int8_weight(inputs, n, k, i)[0].float() * SCALE).to(dtype),)


def fp8_weight(dtype):
    return lambda inputs, n, k, i: (finite(inputs.bytes(n * k, i)).reshape(n, k).view(dtype), torch.tensor(1.0))


def plain_rows(w, rows):
    return w[0][rows].float().double()


def block_scales(inputs, rows, columns, first):
    """`columns` scale codes a row as cuBLAS wants them, from the definition: 128 x 4 tiles of 32 x 4 x 4."""
    natural = first + (inputs.bytes(rows * columns, 3).reshape(rows, columns) & 7)
    padded = torch.zeros((rows + 127) // 128 * 128, (columns + 3) // 4 * 4, dtype=torch.uint8)
    padded[:rows, :columns] = natural
    tiles = padded.reshape(padded.shape[0] // 128, 4, 32, padded.shape[1] // 4, 4).permute(0, 3, 2, 1, 4)
    return natural, tiles.contiguous().reshape(padded.shape)


def nvfp4_weight(inputs, n, k, i):
    natural, tiled = block_scales(inputs, n, k // 16, 0x30)
    data = inputs.bytes(n * k // 2, i).reshape(n, k // 2)
    return data, torch.tensor(1.0), tiled.view(torch.float8_e4m3fn), natural.view(torch.float8_e4m3fn)


def nvfp4_rows(w, rows):
    data = w[0][rows].long()
    values = E2M1[torch.stack([data >> 4, data & 15], dim=-1).reshape(len(rows), -1)]
    return values * w[3][rows].double().repeat_interleave(16, dim=1)


def mxfp8_weight(inputs, n, k, i):
    natural, tiled = block_scales(inputs, n, k // 32, 120)
    data = finite(inputs.bytes(n * k, i)).reshape(n, k).view(torch.float8_e4m3fn)
    return data, tiled.view(torch.float8_e8m0fnu), natural


def mxfp8_rows(w, rows):
    scales = torch.pow(2.0, w[2][rows].double() - 127)
    return w[0][rows].float().double() * scales.repeat_interleave(32, dim=1)


def int4_weight(inputs, n, k, i):
    return (inputs.bytes(n * k // 2, i).view(torch.int8).reshape(n, k // 2),)


def int4_rows(w, rows):
    data = w[0][rows].long() & 255
    codes = torch.stack([data & 15, data >> 4], dim=-1).reshape(len(rows), -1)
    return torch.where(codes < 8, codes, codes - 16).double()


# --- products ---------------------------------------------------------------------------------------------------------

BF16 = torch.bfloat16


class Peer:
    """A way to multiply: its weights and their values, the activations it takes, and how exact it must be."""

    def __init__(self, weight, rows, run, tolerance, activations="bf16", transposed=False, limit="bf16", bits=8):
        self.weight, self.rows, self.run, self.tolerance = weight, rows, run, tolerance
        self.activations, self.transposed, self.limit, self.bits = activations, transposed, limit, bits


PEERS = {
    "torch bf16 linear": Peer(dense_weight(BF16), plain_rows, lambda x, w: F.linear(x, w[0]), 0.01, bits=16),
    "torch bf16 g @ W": Peer(dense_weight(BF16), plain_rows, lambda x, w: x @ w[0], 0.01, transposed=True, bits=16),
    "torch fp32 linear": Peer(dense_weight(torch.float32), plain_rows, lambda x, w: F.linear(x, w[0]), 1e-5,
                              activations="f32", limit="f32", bits=32),
    "torch._int_mm": Peer(int8_weight, int8_rows, lambda x, w: torch._int_mm(x, w[0].t()), 0, "int8", limit="int8"),
    "torch._int_mm g @ W": Peer(int8_weight, int8_rows, lambda x, w: torch._int_mm(x, w[0]), 0, "int8",
                                transposed=True, limit="int8"),
    # The activations are rounded to 8 bits, at most 1/127 of the row's largest apart.
    "kitchen int8_linear": Peer(int8_weight, int8_rows,
                                lambda x, w: kitchen.int8_linear(x, w[0], torch.tensor(1.0), out_dtype=BF16), 0.05,
                                limit="int8"),
    "kitchen int8 dequantize + linear": Peer(
        int8_weight, int8_rows, lambda x, w: F.linear(x, kitchen.dequantize_int8_simple(w[0], torch.tensor(1.0)).to(BF16)),
        0.01),
    "kitchen e4m3 dequantize + linear": Peer(
        fp8_weight(torch.float8_e4m3fn), plain_rows,
        lambda x, w: F.linear(x, eager.dequantize_per_tensor_fp8(w[0], w[1], BF16)), 0.01),
    "kitchen e4m3 dequantize, g @ W": Peer(
        fp8_weight(torch.float8_e4m3fn), plain_rows,
        lambda x, w: x @ eager.dequantize_per_tensor_fp8(w[0], w[1], BF16), 0.01, transposed=True),
    "kitchen e5m2 dequantize + linear": Peer(
        fp8_weight(torch.float8_e5m2), plain_rows,
        lambda x, w: F.linear(x, eager.dequantize_per_tensor_fp8(w[0], w[1], BF16)), 0.01),
    "kitchen nvfp4 dequantize + linear": Peer(
        nvfp4_weight, nvfp4_rows, lambda x, w: F.linear(x, eager.dequantize_nvfp4(w[0], w[1], w[2], BF16)), 0.01,
        bits=4.5),
    "kitchen mxfp8 dequantize + linear": Peer(
        mxfp8_weight, mxfp8_rows, lambda x, w: F.linear(x, eager.dequantize_mxfp8(w[0], w[1], BF16)), 0.01, bits=8.25),
    "kitchen int4 unpack + linear": Peer(
        int4_weight, int4_rows, lambda x, w: F.linear(x, prepare_int4_weight_for_int8_linear(w[0]).to(BF16)), 0.01,
        bits=4),
}

# What of ours stands beside what of theirs; "+ quantize" adds the quantization of the activations to our time.
PAIRS = [
    ("int8 row forward", "torch._int_mm"),
    ("int8 row forward + quantize", "kitchen int8_linear"),
    ("int8 row transposed", "torch._int_mm g @ W"),
    ("int8 block forward", "torch bf16 linear"),
    ("int8 block transposed", "torch bf16 g @ W"),
    ("bf16 x int8 forward", "kitchen int8 dequantize + linear"),
    ("bf16 x e4m3 forward", "kitchen e4m3 dequantize + linear"),
    ("bf16 x e4m3 transposed", "kitchen e4m3 dequantize, g @ W"),
    ("bf16 x e5m2 forward", "kitchen e5m2 dequantize + linear"),
    ("bf16 x fp8 tiles of 128 forward", "torch bf16 linear"),
    ("bf16 x mx fp8 blocks of 32 forward", "kitchen mxfp8 dequantize + linear"),
    ("bf16 x fp4 blocks of 16 forward", "kitchen nvfp4 dequantize + linear"),
    ("bf16 x int4 forward", "kitchen int4 unpack + linear"),
    ("bf16 x bf16 forward", "torch bf16 linear"),
    ("f32 x e4m3 forward", "torch fp32 linear"),
]


class Product:
    """A peer on one shape: rotating weights, activations, a check."""

    def __init__(self, name, inputs, weights, m, n, k):
        self.peer, self.weights, self.at = PEERS[name], weights, 0
        depth = n if self.peer.transposed else k
        source = inputs.codes if self.peer.activations == "int8" else inputs.floats
        self.x = source[:m * depth].reshape(m, depth)
        if self.peer.activations == "f32":
            self.x = self.x.float()

    @staticmethod
    def make_weights(name, inputs, n, k):
        peer = PEERS[name]
        count = max(2, -(-BEYOND_CACHES * 8 // int(n * k * peer.bits)))
        return [peer.weight(inputs, n, k, i) for i in range(count)]

    def run(self):
        self.at = (self.at + 1) % len(self.weights)
        return self.peer.run(self.x, self.weights[self.at])

    def error(self, other):
        """||y - y64|| / ||y64|| over some elements; `other` takes y of other weights."""
        y = self.run()
        w = self.weights[self.at - 1 if other else self.at]
        rows = torch.arange(0, y.shape[0], max(1, y.shape[0] // 8))
        columns = torch.arange(5, y.shape[1], y.shape[1] // 8)
        if self.peer.transposed:
            exact = self.x[rows].double() @ self.peer.rows(w, torch.arange(self.x.shape[1]))[:, columns]
        else:
            exact = self.x[rows].double() @ self.peer.rows(w, columns).t()
        return float((y[rows][:, columns].double() - exact).norm() / exact.norm())

    def check(self):
        """The error as text; raises where it is too large, or the control passes."""
        error = self.error(False)
        if not error <= self.peer.tolerance:
            raise Wrong(f"error {error:.2g}, more than {self.peer.tolerance}")
        if self.error(True) <= self.peer.tolerance:
            raise Wrong("the product with other weights passes")
        return "exact" if error == 0 else f"error {error:.1e}"
