"""Runs the real program: python3 run.py PROGRAM [unittest arguments]. Standard library only."""
import os
import sys
import unittest

import case

if __name__ == "__main__":
    case.PROGRAM = os.path.abspath(sys.argv[1])
    from budget_cases import *  # noqa: F403
    from calibration_cases import *  # noqa: F403
    from convert_cases import *  # noqa: F403
    from extract_cases import *  # noqa: F403
    from lora_cases import *  # noqa: F403
    from merge_cases import *  # noqa: F403
    from other_cases import *  # noqa: F403
    unittest.main(argv=[sys.argv[0]] + sys.argv[2:])
