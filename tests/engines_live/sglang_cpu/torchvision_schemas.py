"""Declares the operators that torchvision's CUDA library would have brought.

SGLang needs torchvision to be importable and never calls it for text. The index's torchvision is a
CUDA build whose library does not load beside a CPU torch, and its own Python then fails on these.
"""

import torch

_library = torch.library.Library("torchvision", "DEF")
for _operator in ("nms", "qnms"):
    _library.define(f"{_operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
