"""CUDA kernels that replace readable functions on a GPU.

A kernel has the name and the signature of the function it replaces and computes the same
in a few launches, where the readable function takes a launch, and a trip to memory, for
each operation. Matrix products are cuBLAS's. A forward function and its backward function
are replaced together, because each pair defines its own cache. The decorator `on_gpu` in
backend/ops.py finds the kernels here, and the tests compare each with the function it
replaces.
"""

from collections.abc import Callable
from typing import Any

from .attention import attention_backward, attention_forward
from .columns import col_sum
from .cross_entropy import cross_entropy_backward, cross_entropy_forward
from .dropout import dropout_backward, dropout_forward
from .gelu import gelu_tanh_backward, gelu_tanh_forward
from .gemm import matmul
from .layernorm import layernorm_backward, layernorm_forward
from .optim import adamw_update, orthogonalise
from .patches import choose_patches
from .softmax import softmax_backward, softmax_forward

KERNELS: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        adamw_update,
        attention_backward,
        attention_forward,
        choose_patches,
        col_sum,
        cross_entropy_backward,
        cross_entropy_forward,
        dropout_backward,
        dropout_forward,
        gelu_tanh_backward,
        gelu_tanh_forward,
        layernorm_backward,
        layernorm_forward,
        matmul,
        orthogonalise,
        softmax_backward,
        softmax_forward,
    )
}
