"""A diffusion transformer small enough to train in minutes on one core, for errors that reach the end of a model.

    tiny_dit.py OUT [--seed S] [--steps N]   # writes OUT/weights.safetensors, OUT/inputs.safetensors, OUT/calibration.safetensors

Flow matching on procedural shapes: 16 x 16 images, patches of 2, width 256, 3 blocks with adaptive layer norm. Trained
weights and real activations are what synthetic matrices lack: the inputs of a trained layer lie where its weights are
large. Everything follows from the seed, but for the CPU's order of additions.
"""
import argparse
import math
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "calibrate"))
from record import Recorder  # noqa: E402

WIDTH, DEPTH, HEADS, SIDE, PATCH = 256, 3, 4, 16, 2
BATCH, TOKENS = 16, 2048  # tokens for calibration, and as many held out
DATA_SEED = 99            # of calibration (batches 0 ... 3) and held-out inputs (4 ... 7)
LAYERS = [f"blocks.{i}.{name}" for i in range(DEPTH) for name in ("qkv", "proj", "fc1", "fc2")]


def images(n, generator):
    """Two discs, squares or diamonds on a gradient."""
    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    y, x = torch.meshgrid(torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij")
    top = uniform(n, 3, 1, 1) * 2 - 1
    image = top + (uniform(n, 3, 1, 1) * 2 - 1 - top) * ((y + 1) / 2)
    label = torch.randint(0, 3, (n,), generator=generator)
    shape = label.view(-1, 1, 1, 1)
    for _ in range(2):
        color = uniform(n, 3, 1, 1) * 2 - 1
        dx, dy = x - (uniform(n, 1, 1, 1) * 1.4 - 0.7), y - (uniform(n, 1, 1, 1) * 1.4 - 0.7)
        radius = uniform(n, 1, 1, 1) * 0.4 + 0.2
        square = torch.maximum(dx.abs(), dy.abs())
        distance = torch.where(shape == 0, (dx**2 + dy**2).sqrt(), torch.where(shape == 1, square, dx.abs() + dy.abs()))
        inside = torch.sigmoid((radius - distance) * 20)
        image = image * (1 - inside) + color * inside
    return image.clamp(-1, 1), label


def batch(n, generator):
    """Noised images, their times and labels, and the velocity that leads from image to noise."""
    image, label = images(n, generator)
    noise = torch.randn(image.shape, generator=generator)
    t = torch.sigmoid(torch.randn(n, generator=generator))
    share = t.view(-1, 1, 1, 1)
    return (1 - share) * image + share * noise, t, label, noise - image


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.fc1 = nn.Linear(WIDTH, 4 * WIDTH)
        self.fc2 = nn.Linear(4 * WIDTH, WIDTH)
        self.ada = nn.Linear(WIDTH, 6 * WIDTH)
        nn.init.zeros_(self.ada.weight)
        nn.init.zeros_(self.ada.bias)

    def forward(self, x, condition):
        shift1, scale1, gate1, shift2, scale2, gate2 = self.ada(F.silu(condition)).unsqueeze(1).chunk(6, -1)
        n, tokens, _ = x.shape
        h = self.norm1(x) * (1 + scale1) + shift1
        q, k, v = self.qkv(h).view(n, tokens, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, WIDTH)
        x = x + gate1 * self.proj(a)
        h = self.norm2(x) * (1 + scale2) + shift2
        return x + gate2 * self.fc2(F.gelu(self.fc1(h), approximate="tanh"))


class TinyDiT(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3 * PATCH * PATCH, WIDTH)
        self.position = nn.Parameter(torch.randn(1, (SIDE // PATCH) ** 2, WIDTH) * 0.02)
        self.time1 = nn.Linear(128, WIDTH)
        self.time2 = nn.Linear(WIDTH, WIDTH)
        self.label = nn.Embedding(3, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.ada = nn.Linear(WIDTH, 2 * WIDTH)
        self.out = nn.Linear(WIDTH, 3 * PATCH * PATCH)
        nn.init.zeros_(self.out.weight)

    def forward(self, x, t, label):
        n, across = x.shape[0], SIDE // PATCH
        h = x.view(n, 3, across, PATCH, across, PATCH).permute(0, 2, 4, 1, 3, 5).reshape(n, -1, 3 * PATCH * PATCH)
        angle = (t * 1000)[:, None] * torch.exp(-math.log(1e4) * torch.arange(64) / 64)
        wave = torch.cat([angle.sin(), angle.cos()], -1)
        condition = self.time2(F.silu(self.time1(wave))) + self.label(label)
        h = self.embed(h) + self.position
        for block in self.blocks:
            h = block(h, condition)
        shift, scale = self.ada(F.silu(condition)).unsqueeze(1).chunk(2, -1)
        h = self.out(self.norm(h) * (1 + scale) + shift)
        return h.view(n, across, across, 3, PATCH, PATCH).permute(0, 3, 1, 4, 2, 5).reshape(n, 3, SIDE, SIDE)


def train(seed, steps):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    model = TinyDiT()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, betas=(0.9, 0.99), weight_decay=0.01)
    started = time.process_time()
    for step in range(steps):
        rate = 1e-3 * min(1, (step + 1) / 50) * (0.5 * (1 + math.cos(math.pi * step / steps)) * 0.95 + 0.05)
        for group in optimizer.param_groups:
            group["lr"] = rate
        x, t, label, velocity = batch(BATCH, generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = model(x, t, label)
        loss = F.mse_loss(out.float(), velocity)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step}: loss {loss.item():.4f}, {time.process_time() - started:.0f} s", flush=True)
    return model.eval()


def load(path):
    model = TinyDiT()
    model.load_state_dict(load_file(path))
    return model.eval()


@torch.no_grad()
def layer_inputs(model):
    """Every other token of eight batches at the inputs of LAYERS: TOKENS for calibration, then TOKENS held out."""
    inputs, hooks = {name: [] for name in LAYERS}, []
    for name in LAYERS:
        keep = lambda _module, args, name=name: inputs[name].append(args[0].reshape(-1, args[0].shape[-1])[::2])  # noqa: E731
        hooks.append(model.get_submodule(name).register_forward_pre_hook(keep))
    generator = torch.Generator().manual_seed(DATA_SEED)
    losses = []
    for _ in range(8):
        x, t, label, velocity = batch(BATCH, generator)
        losses.append(F.mse_loss(model(x, t, label), velocity).item())
    for hook in hooks:
        hook.remove()
    print(f"held-out loss {sum(losses) / len(losses):.4f}")
    return {name: torch.cat(parts)[:2 * TOKENS] for name, parts in inputs.items()}


@torch.no_grad()
def record(model, inputs, path, tokens=TOKENS):
    """A calibration file of the first half of `inputs`."""
    recorder = Recorder(model, names=LAYERS, gram=True)
    for name in LAYERS:
        model.get_submodule(name)(inputs[name][:tokens])
    recorder.save(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    model = train(options.seed, options.steps)
    inputs = layer_inputs(model)
    save_file(inputs, options.out / "inputs.safetensors")
    record(model, inputs, options.out / "calibration.safetensors")
    save_file(model.state_dict(), options.out / "weights.safetensors")  # last: says that the folder is complete


if __name__ == "__main__":
    main()
