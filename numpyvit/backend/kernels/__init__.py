"""What runs on a GPU in place of a readable function: its twin, by name and signature.

A twin computes the same with kernels of our own, by CuPy, and products by cuBLAS: in a few launches, where the readable
function takes one for each operation and goes to memory for each of them. A forward and its backward come together, since
their caches are their own affair. backend.fused finds them; the tests hold each against its readable function.
"""

from collections.abc import Callable
from typing import Any

from .attention import keys_first_backward, keys_first_forward
from .columns import col_sum
from .cross_entropy import cross_entropy_backward, cross_entropy_forward
from .dropout import add_branch_backward, add_branch_forward
from .gelu import gelu_tanh_backward, gelu_tanh_forward
from .gemm import matmul
from .layernorm import layernorm_backward, layernorm_forward
from .optim import adamw_update, orthogonal
from .patches import choose_patches
from .softmax import softmax_backward, softmax_forward

TWINS: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        adamw_update,
        add_branch_backward,
        add_branch_forward,
        choose_patches,
        col_sum,
        cross_entropy_backward,
        cross_entropy_forward,
        gelu_tanh_backward,
        gelu_tanh_forward,
        keys_first_backward,
        keys_first_forward,
        layernorm_backward,
        layernorm_forward,
        matmul,
        orthogonal,
        softmax_backward,
        softmax_forward,
    )
}
