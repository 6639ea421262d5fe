"""Synthetic weights and inputs, error measures, and plain torch versions of the methods to compare codes with.

Seeds and formulas are those that the targets of docs/quality.md were first measured with: do not change one.
"""
import math

import torch

F8 = torch.float8_e4m3fn


def weights(kind, rows, cols, seed=0):
    """gauss: N(0, 0.02^2). lowrank: half of the energy in a decaying signal of rank 32. lowrank+oc: and one column in 200
    eight times as large."""
    generator = torch.Generator().manual_seed(1000 + seed)

    def randn(*shape):
        return torch.randn(*shape, generator=generator)

    if kind == "gauss":
        return randn(rows, cols) * 0.02
    if kind in ("lowrank", "lowrank+oc"):
        left, right = randn(rows, 32), randn(32, cols)
        signal = (left * torch.arange(1, 33).float() ** -0.7) @ right
        noise = randn(rows, cols) * 0.02
        w = noise + signal * (noise.norm() / signal.norm())
        if kind == "lowrank+oc":
            w[:, torch.randperm(cols, generator=generator)[:max(1, cols // 200)]] *= 8
        return w
    raise ValueError(kind)


def inputs(cols, seed=0, tokens=2048):
    """Correlated Gaussian inputs with log-normal channels, one channel in a hundred twelve times as large, and channel
    means: tokens for calibration, and as many held out. More than 2048 channels are mixed by two random rotations of
    512 with permutations, which is cheaper than a random basis."""
    generator = torch.Generator().manual_seed(5000 + seed)
    spectrum = torch.arange(1, cols + 1).float() ** -1.0
    spectrum = spectrum / spectrum.mean()
    if cols > 2048:
        return wide_inputs(cols, seed, tokens, spectrum, generator)
    basis, _ = torch.linalg.qr(torch.randn(cols, cols, generator=generator))
    channel = torch.exp(0.5 * torch.randn(cols, generator=generator))
    channel[torch.randperm(cols, generator=generator)[:max(1, cols // 100)]] *= 12.0
    mean = 0.3 * torch.randn(cols, generator=generator) * channel
    mix = (spectrum.sqrt()[:, None] * basis.T) * channel

    def draw(draw_seed):
        return torch.randn(tokens, cols, generator=torch.Generator().manual_seed(draw_seed)) @ mix + mean

    return draw(7000 + seed), draw(8000 + seed)


def wide_inputs(cols, seed, tokens, spectrum, generator):
    channel = torch.exp(0.5 * torch.randn(cols, generator=generator))
    channel[torch.randperm(cols, generator=generator)[:max(1, cols // 100)]] *= 12.0
    mean = 0.3 * torch.randn(cols, generator=generator) * channel
    rotation, _ = torch.linalg.qr(torch.randn(512, 512, generator=generator))
    orders = [torch.randperm(cols, generator=generator) for _ in range(2)]

    def draw(draw_seed):
        x = torch.randn(tokens, cols, generator=torch.Generator().manual_seed(draw_seed)) * spectrum.sqrt()
        for order in orders:
            x = (x[:, order].view(tokens, -1, 512) @ rotation).reshape(tokens, cols)
        return x * channel + mean

    return draw(7000 + seed), draw(8000 + seed)


def weight_error(w, q):
    return ((q - w).norm() / w.norm()).item()


def output_error(x, w, q):
    return ((x @ (q - w).T).norm() / (x @ w.T).norm()).item()


def subspace(w, rank=256):
    """Leading singular vectors: what learned rounding approximates by random projections, each run a little otherwise."""
    u, _, v = torch.linalg.svd(w)
    return u[:, :rank].contiguous(), v[:rank].T.contiguous()


def subspace_errors(w, q, u, v):
    """||U' E V|| and ||E V||, relative to the weight: what learned rounding means to lower."""
    e = q - w
    return ((u.T @ e @ v).norm() / w.norm()).item(), ((e @ v).norm() / w.norm()).item()


# Rounding on a given grid: `step` holds the scale of every weight, `cast` rounds to the codes of scale 1.
def cast_fp8(x):
    return x.clamp(-448, 448).to(F8).float()


def cast_int8(x):
    return x.round().clamp(-127, 127)


def hessian(x, damping=0.01):
    h = x.T @ x / len(x)
    h.diagonal().add_(h.diagonal().mean() * damping)
    return h


def proxy_hessian(w, damping=0.3):
    h = w.T @ w
    h = h / h.diagonal().mean()
    h.diagonal().add_(damping)
    return h


def by_second_moment(h):
    return torch.argsort(h.diagonal(), descending=True)


def gptq(w, h, step, cast, order=None, block=128):
    """As published: a Cholesky factor of the inverse, errors pushed into the columns that are still to come."""
    order = torch.arange(w.shape[1]) if order is None else order
    w, step, h = w[:, order].clone(), step[:, order], h[order][:, order]
    u = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    q = torch.empty_like(w)
    for first in range(0, w.shape[1], block):
        last = min(first + block, w.shape[1])
        error = torch.empty(len(w), last - first)
        for k in range(first, last):
            q[:, k] = cast(w[:, k] / step[:, k]) * step[:, k]
            error[:, k - first] = (w[:, k] - q[:, k]) / u[k, k]
            w[:, k + 1:last] -= error[:, k - first, None] * u[k, k + 1:last]
        w[:, last:] -= error @ u[first:last, last:]
    return q[:, torch.argsort(order)]


def coordinate_descent(w, q, h, step, cast, sweeps, order=None):
    """Each column in turn to the nearest code of its best value, the others fixed."""
    order = torch.arange(w.shape[1]) if order is None else order
    w, q, step, h = w[:, order], q[:, order].clone(), step[:, order], h[order][:, order]
    for _ in range(sweeps):
        gradient = ((q - w) @ h).T.contiguous()
        for k in range(w.shape[1]):
            new = cast((q[:, k] - gradient[k] / h[k, k]) / step[:, k]) * step[:, k]
            gradient += h[k][:, None] * (new - q[:, k])
            q[:, k] = new
    return q[:, torch.argsort(order)]


def objective(w, q, h):
    e = q - w
    return ((e @ h) * e).sum().item()


def geometric_mean(values):
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values))
