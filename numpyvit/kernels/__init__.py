"""Fused CUDA kernels, by CuPy: each function is the twin, by name and signature, of one in the layers or losses.

A twin computes the same in one launch, or two, where the readable function takes one for each operation and goes to memory
for each of them. A forward and its backward come together, since their caches are their own affair. backend.fused finds
them, on a GPU; the tests hold each against its readable pair.
"""

from collections.abc import Callable
from typing import Any

from .attention import keys_first_backward, keys_first_forward
from .columns import col_sum
from .dropout import add_branch_backward, add_branch_forward
from .gelu import gelu_tanh_backward, gelu_tanh_forward
from .layernorm import layernorm_backward, layernorm_forward
from .losses import cross_entropy_backward, cross_entropy_forward
from .optim import adamw_update, orthogonal
from .patch_dropout import choose_patches
from .products import matmul
from .softmax import softmax_backward, softmax_forward

TWINS: dict[str, Callable[..., Any]] = {f.__name__: f for f in (
    adamw_update, add_branch_backward, add_branch_forward, choose_patches, col_sum, cross_entropy_backward,
    cross_entropy_forward, gelu_tanh_backward, gelu_tanh_forward, keys_first_backward, keys_first_forward,
    layernorm_backward, layernorm_forward, matmul, orthogonal, softmax_backward, softmax_forward)}
