import fp8_block_cases
from make_golden import SHAPES


def cases():
    return fp8_block_cases.cases(21, [("", SHAPES, 1, 0)], lambda s: (s.shape[0],) if s.shape[0] > 1 else ())
