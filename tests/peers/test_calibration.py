"""tools/calibrate/record.py against numpy, and ComfyUI with the activation scales made from it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from peerlib import container, linears

SIZES = {"blocks.0.up": (96, 48), "blocks.0.down": (40, 96)}
PARTS = {"amax", "channel_amax", "channel_mean", "second_moment", "histogram", "tokens"}


@pytest.fixture(scope="session")
def record(torch):
    sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "calibrate"))
    import record
    return record


@pytest.fixture
def model(torch, rng):
    """An MLP whose hidden layer is called by keyword, behind an embedding and before a norm."""
    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.up = torch.nn.Linear(48, 96)
            self.down = torch.nn.Linear(96, 40)

        def hidden(self, x):
            return torch.nn.functional.gelu(torch.nn.functional.linear(x, self.up.weight, self.up.bias))

        def forward(self, x):
            return self.down(input=torch.nn.functional.gelu(self.up(x)))

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(7, 48)
            self.blocks = torch.nn.ModuleList([Block()])
            self.norm = torch.nn.LayerNorm(40)

        def forward(self, x, index):
            return self.norm(self.blocks[0](x + self.table(index)[:, None]))

    torch.manual_seed(int(rng.integers(1 << 31)))
    return Model()


def batches(torch, rng, count, width=1.0):
    return [(torch.from_numpy((width * rng.standard_normal((3, 5, 48)) * np.linspace(.1, 9, 48)).astype(np.float32)),
             torch.from_numpy(rng.integers(0, 7, 3))) for _ in range(count)]


def inputs_of(torch, model, data):
    """layer -> inputs [tokens, K], as the model's own expressions give them."""
    with torch.no_grad():
        first = [(x + model.table(i)[:, None]) for x, i in data]
        second = [model.blocks[0].hidden(x) for x in first]
    return {"blocks.0.up": torch.cat([x.reshape(-1, 48) for x in first]).numpy(),
            "blocks.0.down": torch.cat([x.reshape(-1, 96) for x in second]).numpy()}


def bins(x):
    """Eight bins of equal width for every octave: frexp, not bits."""
    mantissa, exponent = np.frexp(np.abs(x).astype(np.float64))
    inner = 1 + 8 * (exponent - 1 + 40) + np.floor((2 * mantissa - 1) * 8).astype(np.int64)
    return np.where(np.abs(x) < 2.0 ** -40, 0, np.where(np.abs(x) >= 2.0 ** 24, 513, inner))


def check_layer(tensors, name, x, gram):
    """The file's tensors of a layer are the statistics of x."""
    wide = x.astype(np.float64)
    get = {p: tensors[f"{name}.{p}"] for p in PARTS | ({"gram"} if gram else set())}
    assert {p for n, p in (n.rsplit(".", 1) for n in tensors) if n == name} == set(get)
    assert all(get[p].dtype == ("I64" if p in ("histogram", "tokens") else "F32") for p in get)
    assert get["tokens"].array() == len(x) and get["tokens"].shape == ()
    assert get["amax"].array() == np.abs(x).max() and get["amax"].shape == ()
    assert np.array_equal(get["channel_amax"].array(), np.abs(x).max(0))
    assert np.array_equal(get["histogram"].array(), np.bincount(bins(x).ravel(), minlength=514))
    # Sums in float64, rounded to float32 once; squares are rounded to float32 before.
    close = dict(rtol=2.0 ** -22, atol=2.0 ** -22 * np.abs(x).max(0))
    assert (np.abs(get["channel_mean"].array() - wide.mean(0)) <= close["atol"]).all()
    assert np.allclose(get["second_moment"].array(), (wide ** 2).mean(0), rtol=close["rtol"], atol=0)
    if gram:
        full = wide.T @ wide / len(x)
        scale = np.sqrt(np.outer(np.diag(full), np.diag(full)))
        rows, columns = np.tril_indices(x.shape[1])  # by rows
        error = np.abs(get["gram"].array() - full[rows, columns]) / scale[rows, columns]
        assert error.max() <= 2.0 ** -23 * len(x)


def run(torch, model, data, how="plain"):
    with torch.no_grad():
        for x, index in data:
            if how == "inference":
                with torch.inference_mode():
                    model(x, index)
            else:
                model(x, index)


@pytest.mark.parametrize("gram", [False, True])
def test_statistics_are_those_of_the_inputs(record, torch, model, rng, tmp_path, gram):
    data = batches(torch, rng, 6)
    recorder = record.Recorder(model, gram=gram)
    run(torch, model, data[:2], "inference")
    run(torch, model, data[2:4])
    for x, index in data[4:]:
        model(x, index).sum().backward()
    recorder.save(tmp_path / "a.safetensors")
    run(torch, model, data)  # the hooks are gone
    file = container.read(tmp_path / "a.safetensors")
    assert file.metadata["mezzotint_calibration"] == "1"
    assert {n.rsplit(".", 1)[0] for n in file.tensors} == set(SIZES)
    inputs = inputs_of(torch, model, data)
    for name, x in inputs.items():
        check_layer(file.tensors, name, x, gram)
        with pytest.raises(AssertionError):  # negative control
            check_layer(file.tensors, name, x * np.float32(1 + 1e-5), gram)
        with pytest.raises(AssertionError):
            check_layer(file.tensors, name, x[1:], gram)


def test_autocast_names_and_tokens_that_are_not_finite(record, torch, model, rng, tmp_path):
    data = batches(torch, rng, 2)
    data[0][0][1, 2, 7] = float("nan")
    data[1][0][0, 0, 0] = float("inf")
    recorder = record.Recorder(model, names=["blocks.0.up"], gram=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        run(torch, model, data)
    with pytest.warns(UserWarning, match="blocks.0.up: 2 tokens"):
        recorder.save(tmp_path / "a.safetensors")
    x = inputs_of(torch, model, data)["blocks.0.up"]
    x = x[np.isfinite(x).all(1)]
    assert len(x) == 28
    tensors = container.read(tmp_path / "a.safetensors").tensors
    assert {n.rsplit(".", 1)[0] for n in tensors} == {"blocks.0.up"}
    check_layer(tensors, "blocks.0.up", x, True)  # float32 in spite of autocast


def checkpoint(torch, model, path):
    state = {f"model.diffusion_model.{n}": container.f32(t.numpy()) for n, t in model.state_dict().items()}
    return container.write(path, state)


def test_two_recordings_count_as_one(record, mezzotint, torch, model, rng, tmp_path):
    first, second = batches(torch, rng, 20), batches(torch, rng, 3, 4.0)
    for name, data in {"a": first, "b": second, "ab": first + second}.items():
        recorder = record.Recorder(model, gram=name != "b")
        run(torch, model, data)
        recorder.save(tmp_path / f"{name}.safetensors")
    source = checkpoint(torch, model, tmp_path / "in.safetensors")

    def scales(*files, rule="amax", target="float8_e4m3fn"):
        text = mezzotint.run("plan", source, "--json", "--to", target, "--include", "blocks", "--input-scale", rule,
                             "--calibration", *(tmp_path / f"{f}.safetensors" for f in files))
        rows = json.loads(text[text.index("{"):text.rindex("}") + 1])["rows"]
        return {r["name"].removeprefix("model.diffusion_model."): np.float32(r["input_scale"])
                for r in rows if "input_scale" in r}

    assert set(scales("a")) == set(SIZES)
    inputs = inputs_of(torch, model, first + second)
    for rule in ("amax", "p99.9", "p50"):
        assert scales("a", "b", rule=rule) == scales("b", "a", rule=rule) == scales("ab", rule=rule)
        assert scales("a", "b", rule=rule) != scales("a", rule=rule)  # negative control
        for name, scale in scales("a", "b", rule=rule).items():
            percent = 100 if rule == "amax" else float(rule[1:])
            exact = np.percentile(np.abs(inputs[name]), percent, method="inverted_cdf")
            assert abs(scale * 448 / exact - 1) <= (1e-6 if rule == "amax" else 1 / 8), rule
    for target, divisor in {"float8_e5m2": 57344, "nvfp4": 2688}.items():
        for name, scale in scales("ab", target=target).items():
            assert scale == np.abs(inputs[name]).max() / np.float32(divisor)
    assert not scales("ab", target="int8_row") and not scales("ab", rule="none")


def test_comfyui_uses_the_scales(record, mezzotint, comfy, torch, model, rng, tmp_path):
    """Beyond 448 ComfyUI's fp8 product clips inputs unless a scale is stored."""
    data = batches(torch, rng, 4, 1000.0)
    recorder = record.Recorder(model)
    run(torch, model, data)
    recorder.save(tmp_path / "c.safetensors")
    source = container.write(tmp_path / "in.safetensors",
                             {n: container.f32(t.numpy()) for n, t in model.state_dict().items() if "blocks" in n})
    inputs = inputs_of(torch, model, data)
    errors = {}
    for name, extra in {"without": (), "with": ("--calibration", tmp_path / "c.safetensors")}.items():
        output = tmp_path / f"{name}.safetensors"
        file = mezzotint.convert(source, "float8_e4m3fn", output, include="blocks", extra=extra)
        mezzotint.run("verify", output)
        mezzotint.run("inspect", output)
        layers = linears.load(comfy, torch, output, SIZES)
        for layer, linear in layers.items():
            if name == "with":
                assert float(linear.input_scale) == np.abs(inputs[layer]).max() / np.float32(448)
                assert file.tensors[layer + ".input_scale"].shape == ()
            x = torch.from_numpy(inputs[layer])
            weight, bias = model.get_submodule(layer).weight, model.get_submodule(layer).bias
            with torch.no_grad():
                expected = torch.nn.functional.linear(x, weight, bias).numpy()
                got = linear(x).numpy()
            errors[name, layer] = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    for layer in SIZES:
        assert errors["with", layer] < 0.05, errors  # three bits of mantissa twice
        assert errors["without", layer] > 0.3, errors


def test_comfyui_multiplies_smoothed_inputs(record, mezzotint, comfy, torch, model, rng, tmp_path):
    """--smooth: ComfyUI reads the factors, and what it computes is the layer's own output."""
    data = batches(torch, rng, 4)
    recorder = record.Recorder(model)
    run(torch, model, data)
    recorder.save(tmp_path / "c.safetensors")
    source = container.write(tmp_path / "in.safetensors",
                             {n: container.f32(t.numpy()) for n, t in model.state_dict().items() if "blocks" in n})
    inputs = inputs_of(torch, model, data)
    output = tmp_path / "out.safetensors"
    file = mezzotint.convert(source, "nvfp4", output, include="blocks",
                             extra=("--calibration", tmp_path / "c.safetensors", "--smooth", "0.5"))
    mezzotint.run("verify", output)
    for name, linear in linears.load(comfy, torch, output, SIZES).items():
        w, bias = (t.detach() for t in (model.get_submodule(name).weight, model.get_submodule(name).bias))
        x = torch.from_numpy(inputs[name])
        size = np.sqrt(np.abs(inputs[name]).max(0) / w.abs().amax(0).numpy())
        wanted = np.exp(np.log(size).mean()) / size
        factors = linear.pre_quant_scale.numpy()
        np.testing.assert_allclose(factors, wanted, rtol=2.0**-8)  # rounded to bf16
        assert np.array_equal(factors, linear.pre_quant_scale.bfloat16().float().numpy())
        assert float(linear.input_scale) == np.abs(inputs[name] * factors).max() / np.float32(2688)
        assert file.tensors[name + ".pre_quant_scale"].dtype == "F32"
        expected = torch.nn.functional.linear(x, w, bias).numpy()

        def error():
            with torch.no_grad():
                return np.linalg.norm(linear(x).numpy() - expected) / np.linalg.norm(expected)

        assert error() < 0.2
        with torch.no_grad():
            linear.pre_quant_scale.mul_(0.5)
        assert error() > 0.3, "negative control: it is these factors that are multiplied by"
