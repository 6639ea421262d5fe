import fp8_block_cases


def cases():
    return fp8_block_cases.cases(22, [("block_size=3", [(6, 9)], 3, 3), ("block_size=1", [(2, 3)], 1, 1)], lambda s: s.shape)
