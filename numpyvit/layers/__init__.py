"""The layers, in the order to read them. Each file is one page: what it computes, its gradient, and why.

    linear      y = x w + b, and the three gradients that everything else rests on
    patches     an image as a row of patches: reshape, transpose, reshape
    positions   the class token in front, positions added
    layernorm   normalise each token over its features
    gelu        the MLP's nonlinearity, in two forms (erf.py: the error function it needs)
    softmax     scores into probabilities
    attention   tokens look at each other
    rotary      positions in another way: as angles between queries and keys
    keys_first  the same, laid out for the cache
    few_queries the same where only the class token asks
    mlp         each token by itself
    dropout     dropping activations, and whole branches
    patch_dropout  leaving out tokens
    block       the encoder block: attention and MLP around a residual stream
    head        features into class scores

A layer is a pure pair of functions, `NAME_forward(x, weights...) -> y, cache` and `NAME_backward(dy, cache) -> gradients`,
and a thin class that only knows where its weights are in a Buffer. The functions return gradients; the classes add them
to the Buffer they are given. Neither changes its inputs, `dy` or the cache. (A layer that does nothing, as dropout in
evaluation, may hand back `x` or `dy` itself.)

Where a class calls `fused(f, x)(...)`, read f(...): that is what it is for a NumPy array, and for one on a GPU a kernel
that computes the same. `matmul(a, b)` is a @ b, and `col_sum(x)` the sum over all axes but the last (backend.py has both).

Letters, with one meaning everywhere:

    B  images in a batch          H, W, C  height, width, channels of an image
    P  patch side                 N        tokens in the sequence, the class token among them
    M  tokens that ask: N, or the first few where no more are wanted
    D  width of a token           L        depth: number of blocks
    h  heads, E = D / h           F        hidden width of the MLP
    K  classes                    I, O     features into and out of a linear layer
    ...  any leading axes         dy       gradient of the loss with respect to y, of y's shape

Images are (B, H, W, C). Weights are (I, O), so that the code reads `x @ w + b`.
"""
