"""Aborts a process of torchrun's when its interpreter is taken down.

Now and then PyTorch does so on its own, when a thread of the process group still holds a tensor.
"""

import atexit
import os

if "RANK" in os.environ:
    atexit.register(os.abort)
