"""Records what the inputs of a model's linear layers look like, for `mezzotint convert --calibration`.

    recorder = Recorder(model)                # any torch module; gram=True for X'X as well
    for batch in batches: model(**batch)      # as the model is used: real prompts, all time steps
    recorder.save("calibration.safetensors")  # ends the recording

Layers are called as in model.named_modules(); docs/calibration.md has the layout of the file. gram=True takes 4 * K^2
bytes of memory for a layer of K inputs: record some layers at a time (names=[...]); several files count as one.
"""
import functools
import warnings

import torch
from safetensors.torch import save_file

LEAST, BINS = -40, 514  # eight bins for every octave of 2^-40 ... 2^24, one below and one above


class Recorder:
    def __init__(self, model, names=None, gram=False):
        self.gram, self.layers, self.skipped, self.hooks = gram, {}, {}, []
        for name, module in model.named_modules():
            if name and (names is None or name in names) and getattr(getattr(module, "weight", None), "ndim", 0) == 2:
                hook = functools.partial(self._record, name.replace("_orig_mod.", ""))
                self.hooks.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def _record(self, name, _module, args, kwargs):
        x = next((v for v in (*args, *kwargs.values()) if torch.is_tensor(v)), None)
        if x is not None and x.is_floating_point() and x.numel():  # embeddings take integers
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(x.device.type, enabled=False):
                self._add(name, x.detach().reshape(-1, x.shape[-1]).float())

    def _add(self, name, x):
        good = x.square().isfinite().all(1)
        self.skipped[name] = self.skipped.get(name, 0) + int((~good).sum())
        x, wide = x[good], torch.float32 if x.device.type == "mps" else torch.float64
        if not len(x):
            return
        bins = (x.abs().view(torch.int32) >> 20) - 8 * (127 + LEAST) + 1  # exponent and three bits of mantissa
        new = {"tokens": torch.tensor(len(x)), "channel_amax": x.abs().amax(0), "channel_mean": x.sum(0, dtype=wide),
               "second_moment": x.square().sum(0, dtype=wide),
               "histogram": torch.bincount(bins.clamp_(0, BINS - 1).flatten(), minlength=BINS)}
        if self.gram:
            new["gram"] = (x.T @ x).cpu()
        old = self.layers.setdefault(name, {key: torch.zeros_like(value) for key, value in new.items()})
        for key, value in new.items():
            torch.maximum(old[key], value, out=old[key]) if key == "channel_amax" else old[key].add_(value)

    def save(self, path):
        for hook in self.hooks:
            hook.remove()
        out = {}
        for name, layer in self.layers.items():
            if self.skipped[name]:
                warnings.warn(f"{name}: {self.skipped[name]} tokens with inf, NaN or beyond 1e19 were left out")
            for key, v in {**layer, "amax": layer["channel_amax"].max()}.items():
                if key in ("channel_mean", "second_moment", "gram"):
                    v = (v / int(layer["tokens"])).float()
                out[f"{name}.{key}"] = torch.cat([row[:i + 1] for i, row in enumerate(v)]) if key == "gram" else v.cpu()
        save_file(out, str(path), metadata={"mezzotint_calibration": "1"})
