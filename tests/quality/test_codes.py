"""Our codes beside those of plain torch versions of the same methods (reference.py), on the same scales.

A few codes may differ: sums of other orders decide ties otherwise, and each such code moves those after it.
"""
import pytest
import torch
from program import quantized
from reference import (by_second_moment, cast_fp8, cast_int8, coordinate_descent, gptq, hessian, inputs, objective,
                       proxy_hessian, weights)
from synthetic import NAME, record

ROWS, COLS, TOKENS = 256, 512, 2048
MOST_DIFFERENT = 0.01
FORMATS = {"float8_e4m3fn": (cast_fp8, lambda w: (w.abs().max() / 448).expand_as(w)),
           "int8_row": (cast_int8, lambda w: (w.abs().amax(1, keepdim=True) / 127).expand_as(w))}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    torch.set_num_threads(1)
    x, _ = inputs(COLS, tokens=TOKENS)
    calibration = tmp_path_factory.mktemp("codes") / "calibration.safetensors"
    record(x, calibration)
    return weights("lowrank", ROWS, COLS), x, calibration


def different(a, b, step):
    return ((a - b).abs() > step / 1000).float().mean().item()


def expected(w, x, target, effort, data):
    cast, step_of = FORMATS[target]
    step = step_of(w)
    # 2048 tokens are four times as many as inputs: 1 % of damping.
    h = hessian(x, 0.01) if data else proxy_hessian(w, 0.3 if effort < 3 else 1.0)
    order = by_second_moment(h) if data else None
    q = gptq(w, h, step, cast, order)
    if effort == 3:
        q = coordinate_descent(w, q, h, step, cast, 2, order)
    return q, h, step, order


@pytest.mark.parametrize("target", list(FORMATS))
@pytest.mark.parametrize("effort", [2, 3])
@pytest.mark.parametrize("data", [False, True])
def test_codes(case, target, effort, data):
    w, x, calibration = case
    q, h, step, _ = expected(w, x, target, effort, data)
    ours = quantized({NAME: w}, target, ["--effort", str(effort)], calibration if data else None)[0][NAME]
    share = different(ours, q, step)
    ratio = objective(w, ours, h) / objective(w, q, h)
    print(f"{target}, effort {effort}, data {data}: {100 * share:.3f} % of codes differ, objective x{ratio:.5f}")
    assert share < MOST_DIFFERENT
    assert abs(ratio - 1) < 1e-3

    # Negative control: a method that is nearly the same, columns in the opposite order, is told apart.
    cast = FORMATS[target][0]
    backwards = torch.argsort(h.diagonal()) if data else torch.arange(COLS - 1, -1, -1)
    assert different(gptq(w, h, step, cast, backwards), ours, step) > 5 * MOST_DIFFERENT
