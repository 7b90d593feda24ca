"""One thread, so that sums have one order and parallel test runs do not slow each other down."""

import torch

torch.set_num_threads(1)
