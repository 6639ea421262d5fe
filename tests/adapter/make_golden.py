#!/usr/bin/env python3
"""Writes the golden merges of tests/adapter: golden/ALGORITHM.json. A name as argument makes that one only.

The oracle is the closed form in float64 NumPy, written from the papers' formulas with einsum. Cases in which LyCORIS (4.1.3)
agrees to 1e-6 say so; where it does not, or cannot take its own shapes back, the program prints it: strengths between 0 and 1
of DoRA and of rescaled rotations (whose strength 0 is not the weight there), GLoRA with cores and in the old layout, alphas
that are no scale. Run it again only when a case is added.

A file is {"made_by": text, "cases": [case, ...]}; a case is

    name      algorithm, kind of layer and what is special
    weight    {"shape", "values"}: integers, to be divided by 64
    tensors   suffix -> {"shape", "values"}: as a file has them behind the target's name, integers over 64
    strength  of the merge
    metadata  of the file (optional)
    oracle    "numpy", or "numpy, LyCORIS"
    expected  hex of float32, little-endian: the merged weight
"""
import json
import sys
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).resolve().parent / "golden"
KERNELS = {"linear": (), "conv1d": (3,), "conv2d": (2, 3), "conv3d": (2, 1, 3)}
O, I, R = 8, 6, 3

def rng_of(name):
    return np.random.default_rng(list(name.encode()))


class Draw:
    """Integers over 64, so that every dialect and the oracle see the same numbers."""

    def __init__(self, name):
        self.rng = rng_of(name)

    def __call__(self, *shape, size=64):
        return self.rng.integers(-size, size + 1, shape) / 64.0


def tucker(core, a, b):
    """[r, O], [r, I] around [r, r, *k] -> [O, I, *k]."""
    return np.einsum("ij...,ip,jq->pq...", core, a, b)


def scale(t, rank):
    return float(t[".alpha"].item()) / rank if ".alpha" in t else 1.0


def lora(w, t, s):
    up, down = t[".lora_up.weight"], t[".lora_down.weight"]
    rank = down.shape[0]
    if ".lora_mid.weight" in t:
        delta = tucker(t[".lora_mid.weight"], up.reshape(up.shape[:2]).T, down.reshape(down.shape[:2]))
    else:
        delta = (up.reshape(len(up), -1) @ down.reshape(rank, -1)).reshape(w.shape)
    return w + s * scale(t, rank) * delta


def loha(w, t, s):
    a1, b1, a2, b2 = (t[f".hada_w{n}_{x}"] for n in "12" for x in "ab")
    if ".hada_t1" in t:
        delta = tucker(t[".hada_t1"], a1, b1) * tucker(t[".hada_t2"], a2, b2)
    else:
        delta = ((a1 @ b1) * (a2 @ b2)).reshape(w.shape)
    return w + s * scale(t, b1.shape[0]) * delta


def lokr(w, t, s):
    rank = None
    if ".lokr_w1" in t:
        w1 = t[".lokr_w1"]
    else:
        w1 = t[".lokr_w1_a"] @ t[".lokr_w1_b"]
        rank = t[".lokr_w1_b"].shape[0]
    if ".lokr_w2" in t:
        w2 = t[".lokr_w2"]
    else:
        rank = t[".lokr_w2_b"].shape[0]
        if ".lokr_t2" in t:
            w2 = tucker(t[".lokr_t2"], t[".lokr_w2_a"], t[".lokr_w2_b"])
        else:
            w2 = t[".lokr_w2_a"] @ t[".lokr_w2_b"].reshape(rank, -1)
    w2 = w2.reshape(len(w) // len(w1), w.shape[1] // w1.shape[1], *w.shape[2:])
    delta = np.einsum("lm,pq...->lpmq...", w1, w2).reshape(w.shape)
    return w + s * (1 if rank is None else scale(t, rank)) * delta


def cayley(blocks, bound):
    q = blocks - np.swapaxes(blocks, -1, -2)
    norm = np.sqrt((q ** 2).sum())
    if 0 < bound < norm:
        q = q * bound / norm
    eye = np.eye(q.shape[-1])
    return (eye + q) @ np.linalg.inv(eye - q)


def rescaled(t, s, w):
    if ".rescale" not in t:
        return w
    return w * (1 + s * (t[".rescale"] - 1)).reshape(-1, *[1] * (w.ndim - 1))


def bound_of(t, rows, per_row):
    return float(t[".alpha"].item()) * (rows if per_row else 1) if ".alpha" in t else 0


def oft(w, t, s, per_row=False):
    r = cayley(t[".oft_blocks"], bound_of(t, len(w), per_row))
    n, b, _ = r.shape
    turned = np.einsum("knm,kni->kmi", r, w.reshape(n, b, -1)).reshape(w.shape)
    return rescaled(t, s, w + s * (turned - w))


def boft(w, t, s, per_row=False):
    r = cayley(t[".oft_blocks"], bound_of(t, len(w), per_row))
    m, n, b, _ = r.shape
    out = w.reshape(len(w), -1)
    for stage in range(m):
        k = 2 ** stage * b // 2
        order = np.arange(len(w)).reshape(-1, 2, k).transpose(0, 2, 1).reshape(-1)
        rows = out[order].reshape(n, b, -1)
        mixed = s * np.einsum("nij,njk->nik", r[stage], rows) + (1 - s) * rows
        out = np.empty_like(out)
        out[order] = mixed.reshape(len(w), -1)
    return rescaled(t, s, out.reshape(w.shape))


def glora(w, t, s):
    a1, a2, b1, b2 = (t[f".{x}.weight"] for x in ("a1", "a2", "b1", "b2"))
    flat = [x.reshape(len(x), -1) for x in (a1, a2, b1, b2)]
    if a1.shape[0] == w.shape[1]:
        rank = a2.shape[0]
        change = np.einsum("oi...,ij->oj...", w, flat[0] @ flat[1])
        if ".bm.weight" in t:
            change = change + tucker(t[".bm.weight"], flat[2].T, flat[3])
        else:
            change = change + (flat[2] @ flat[3]).reshape(w.shape)
    else:
        rank = a1.shape[0]
        change = (w.reshape(len(w), -1) @ a2 @ a1 + b2 @ b1).reshape(w.shape)
    return w + s * scale(t, rank) * change


def dora(merge, magnitude, axis):
    def merged(w, t, s):
        v = merge(w, t, 1.0)
        m = t[magnitude]
        if axis == "rows":
            norm = np.sqrt((v.reshape(len(v), -1) ** 2).sum(1)).reshape(-1, *[1] * (v.ndim - 1))
            m = m.reshape(norm.shape)
        else:
            norm = np.sqrt((v ** 2).sum(axis=tuple(i for i in range(v.ndim) if i != 1), keepdims=True))
        return w + s * (v * m / norm - w)
    return merged


def ia3(w, t, s):
    v = t[".weight"].reshape(-1)
    shape = (1, -1) if t[".on_input"].item() else (-1, 1)
    return w * (1 + s * v).reshape(*shape, *[1] * (w.ndim - 2))


def diff(w, t, s):
    return w + s * t[".diff"]


def replaced(w, t, s):
    return t[".set_weight"]


# --- cases ------------------------------------------------------------------------------------------------------------
def ones(k):
    return [1] * len(k)


def cases_lora(kind, k, d):
    flat = (I * int(np.prod(k)),)
    yield "", lora, {".lora_up.weight": d(O, R, *ones(k)), ".lora_down.weight": d(R, I, *k), ".alpha": np.array(2.0)}, .75
    yield "no alpha", lora, {".lora_up.weight": d(O, R, *ones(k)), ".lora_down.weight": d(R, I, *k)}, 1.0
    if k:
        yield "flat", lora, {".lora_up.weight": d(O, R), ".lora_down.weight": d(R, *flat), ".alpha": np.array(1.0)}, -1.5
        yield "core", lora, {".lora_up.weight": d(O, R, *ones(k)), ".lora_down.weight": d(R, I, *ones(k)),
                             ".lora_mid.weight": d(R, R, *k), ".alpha": np.array(2.0)}, 1.0


def cases_dora(kind, k, d):
    base = {".lora_up.weight": d(O, R, *ones(k)), ".lora_down.weight": d(R, I, *k), ".alpha": np.array(2.0)}
    rows, cols = np.abs(d(O, *ones(k), 1)) + 1, np.abs(d(1, I, *ones(k))) + 1
    for s in (1.0, .5):
        yield f"rows, {s}", dora(lora, ".dora_scale", "rows"), {**base, ".dora_scale": rows}, s
        yield f"columns, {s}", dora(lora, ".dora_scale", "columns"), {**base, ".dora_scale": cols}, s
    peft = {".lora_B.weight": ".lora_up.weight", ".lora_A.weight": ".lora_down.weight"}

    def merge(w, t, s):
        return dora(lora, ".lora_magnitude_vector", "rows")(w, {peft.get(key, key): x for key, x in t.items()}, s)
    shape = (O,) if not k else (1, O, *ones(k))
    named = {a: base[b] for a, b in peft.items()}
    yield "PEFT", merge, {**named, ".lora_magnitude_vector": rows.reshape(shape)}, 1.0


def cases_loha(kind, k, d):
    n = I * int(np.prod(k))
    t = {".hada_w1_a": d(O, R), ".hada_w1_b": d(R, n), ".hada_w2_a": d(O, R), ".hada_w2_b": d(R, n),
         ".alpha": np.array(2.0)}
    yield "", loha, t, .75
    yield "DoRA", dora(loha, ".dora_scale", "rows"), {**t, ".dora_scale": np.abs(d(O, *ones(k), 1)) + 1}, 1.0
    if k:
        yield "core", loha, {".hada_w1_a": d(R, O), ".hada_w1_b": d(R, I), ".hada_t1": d(R, R, *k), ".hada_w2_a": d(R, O),
                             ".hada_w2_b": d(R, I), ".hada_t2": d(R, R, *k), ".alpha": np.array(2.0)}, 1.0


def cases_lokr(kind, k, d):
    full1, full2 = {".lokr_w1": d(2, 3)}, {".lokr_w2": d(4, 2, *k)}
    low1 = {".lokr_w1_a": d(2, 1), ".lokr_w1_b": d(1, 3)}
    low2 = {".lokr_w2_a": d(4, 2), ".lokr_w2_b": d(2, 2 * int(np.prod(k)))}
    alpha = {".alpha": np.array(3.0)}
    yield "full, full", lokr, {**full1, **full2, **alpha}, .75
    yield "full, low", lokr, {**full1, **low2, **alpha}, 1.0
    yield "low, full", lokr, {**low1, **full2, **alpha}, 1.0
    yield "low, low", lokr, {**low1, **low2, **alpha}, 1.0
    yield "DoRA", dora(lokr, ".dora_scale", "rows"), {**full1, **low2, **alpha,
                                                      ".dora_scale": np.abs(d(O, *ones(k), 1)) + 1}, 1.0
    if k:
        yield "kernel in w2_b", lokr, {**full1, ".lokr_w2_a": d(4, 2), ".lokr_w2_b": d(2, 2, *k), **alpha}, 1.0
        yield "core", lokr, {**full1, ".lokr_w2_a": d(2, 4), ".lokr_w2_b": d(2, 2), ".lokr_t2": d(2, 2, *k), **alpha}, 1.0


KOHYA = {"ss_network_module": "lycoris.kohya"}


def cases_oft(kind, k, d):
    blocks, rescale = {".oft_blocks": d(4, 2, 2)}, {".rescale": 1 + d(O, *ones(k), 1, size=32)}
    yield "", oft, {**blocks, ".alpha": np.array(0.0)}, 1.0
    yield "half", oft, blocks, .5
    yield "rescaled", oft, {**blocks, **rescale, ".alpha": np.array(0.0)}, 1.0
    yield "rescaled, half", oft, {**blocks, **rescale}, .5
    yield "large blocks", oft, {".oft_blocks": d(2, 4, 4)}, .75
    yield "bound", oft, {**blocks, ".alpha": np.array(.5)}, 1.0
    yield "bound per row", lambda w, t, s: oft(w, t, s, True), {**blocks, ".alpha": np.array(.0625)}, 1.0, KOHYA


def cases_boft(kind, k, d):
    blocks, rescale = {".oft_blocks": d(2, 2, 4, 4)}, {".rescale": 1 + d(O, *ones(k), 1, size=32)}
    yield "", boft, {**blocks, ".alpha": np.array(0.0)}, 1.0
    yield "half", boft, blocks, .5
    yield "rescaled", boft, {**blocks, **rescale, ".alpha": np.array(0.0)}, 1.0
    yield "bound per row", lambda w, t, s: boft(w, t, s, True), {**blocks, ".alpha": np.array(.0625)}, 1.0, KOHYA
    yield "three stages", boft, {".oft_blocks": d(3, 4, 2, 2), ".alpha": np.array(0.0)}, 1.0


def cases_glora(kind, k, d):
    n = I * int(np.prod(k))
    side = {".a1.weight": d(I, R, *ones(k)), ".a2.weight": d(R, I, *ones(k)), ".b1.weight": d(O, R, *ones(k))}
    yield "", glora, {**side, ".b2.weight": d(R, I, *k), ".alpha": np.array(2.0)}, .75
    yield "old", glora, {".a1.weight": d(R, n), ".a2.weight": d(n, R), ".b1.weight": d(R, n), ".b2.weight": d(O, R),
                         ".alpha": np.array(2.0)}, 1.0
    if k:
        yield "core", glora, {**side, ".b2.weight": d(R, I, *ones(k)), ".bm.weight": d(R, R, *k),
                              ".alpha": np.array(2.0)}, 1.0


def cases_ia3(kind, k, d):
    out = (O,) if not k else (1, O, *ones(k))
    yield "output", ia3, {".weight": d(*out), ".on_input": np.array(0.0)}, .75
    inp = (I,) if not k else (1, I, *ones(k))
    yield "input", ia3, {".weight": d(*inp), ".on_input": np.array(1.0)}, 1.0


def cases_diff(kind, k, d):
    yield "", diff, {".diff": d(O, I, *k)}, .75


def cases_set(kind, k, d):
    yield "", replaced, {".set_weight": d(O, I, *k)}, .75


FILES = {"lora": cases_lora, "dora": cases_dora, "loha": cases_loha, "lokr": cases_lokr, "oft": cases_oft, "boft": cases_boft,
         "glora": cases_glora, "ia3": cases_ia3, "diff": cases_diff, "set": cases_set}


# --- the second opinion -----------------------------------------------------------------------------------------------
def lycoris_delta(f, t, shape):
    """Its functional interface: modules apply LoHa's and LoKr's scale twice."""
    def get(*names):
        return [t.get(name) for name in names]
    if ".lora_up.weight" in t:
        down, up, mid = get(".lora_down.weight", ".lora_up.weight", ".lora_mid.weight")
        delta = f.locon.diff_weight(down, up, mid, gamma=scale(t, len(down)))
    elif ".hada_w1_a" in t:
        parts = get(*(f".hada_{x}" for x in ("w1_b", "w1_a", "w2_b", "w2_a", "t1", "t2")))
        delta = f.loha.diff_weight(*parts, gamma=scale(t, len(parts[0])))
    else:
        parts = get(*(f".lokr_{x}" for x in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")))
        rank = parts[5] if parts[5] is not None else parts[2]
        delta = f.lokr.kron_weight(*parts, scale=1 if rank is None else scale(t, len(rank)))
    return delta.reshape(shape)


def lycoris_merge(algorithm, w, tensors, strength):
    """What LyCORIS makes of the same tensors, or None where it cannot be asked."""
    if ".lora_magnitude_vector" in tensors or algorithm in ("ia3", "diff", "set"):
        return None
    import torch
    from lycoris import functional, modules

    state = {key: torch.tensor(value) for key, value in tensors.items()}
    weight = torch.tensor(w)
    if algorithm in ("lora", "loha", "lokr", "dora"):
        merged = weight + (strength if ".dora_scale" not in state else 1) * lycoris_delta(functional, state, w.shape)
        if ".dora_scale" in state:
            merged = functional.weight_decompose(merged, state[".dora_scale"], strength, state[".dora_scale"].shape[0] == O)
        return merged.numpy()
    cls = {"oft": modules.DiagOFTModule, "boft": modules.ButterflyOFTModule, "glora": modules.GLoRAModule}[algorithm]
    if w.ndim == 2:
        layer = torch.nn.Linear(w.shape[1], w.shape[0], bias=False)
    else:
        layer = getattr(torch.nn, f"Conv{w.ndim - 2}d")(w.shape[1], w.shape[0], w.shape[2:], bias=False)
    layer.weight.data.copy_(weight)
    state.setdefault(".alpha", torch.tensor(0.0))
    with torch.no_grad():
        module = cls.make_module_from_state_dict("x", layer, *(state.get("." + name) for name in cls.weight_list))
        delta, _ = module.get_diff_weight(multiplier=strength)
    return w + delta.reshape(w.shape).double().numpy()


def ints(x):
    scaled = np.asarray(x, np.float64) * 64
    assert (scaled == np.round(scaled)).all()
    return {"shape": list(np.shape(x)), "values": [int(v) for v in scaled.reshape(-1)]}


def make(algorithm):
    cases, agreed, refused = [], 0, []
    for kind, kernel in KERNELS.items():
        draw = Draw(f"{algorithm} {kind}")
        for label, merge, tensors, strength, *metadata in FILES[algorithm](kind, kernel, draw):
            tensors = {key: value.reshape(O, *ones(kernel), 1) if key in (".dora_scale", ".rescale") and value.size == O
                       else value for key, value in tensors.items()}
            name = f"{algorithm} {kind} {label}".strip()
            w = draw(O, I, *kernel)
            expected = merge(w, tensors, strength)
            case = {"name": name, "weight": ints(w), "tensors": {key: ints(value) for key, value in tensors.items()},
                    "strength": strength, "oracle": "numpy", "expected": expected.astype("<f4").tobytes().hex()}
            if metadata:
                case["metadata"] = metadata[0]
            try:
                other = lycoris_merge(algorithm, w, tensors, strength)
            except Exception as error:  # noqa: BLE001: what it cannot do is said below
                other, refused = None, refused + [f"{name}: {type(error).__name__} {error}"[:140]]
            if other is not None:
                error = np.abs(other - expected).max() / np.abs(expected).max()
                if error < 1e-6:
                    case["oracle"], agreed = "numpy, LyCORIS", agreed + 1
                else:
                    refused.append(f"{name}: differs by {error:.2g}")
            cases.append(case)
    text = {"made_by": "tests/adapter/make_golden.py: float64 NumPy; LyCORIS 4.1.3 where named", "cases": cases}
    GOLDEN.mkdir(exist_ok=True)
    path = GOLDEN / f"{algorithm}.json"
    path.write_text("{\"made_by\": " + json.dumps(text["made_by"]) + ",\n \"cases\": [\n" +
                    ",\n".join(json.dumps(case) for case in cases) + "]}\n")
    print(f"{algorithm}: {len(cases)} cases, LyCORIS agrees in {agreed}; {path.stat().st_size} bytes")
    for line in refused:
        print("   ", line)


for chosen in sys.argv[1:] or FILES:
    make(chosen)
