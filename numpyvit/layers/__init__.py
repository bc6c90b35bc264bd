"""The layers of a Vision Transformer, to be read in order, as the pages of a textbook.

**What the model does.** An image is cut into patches, and each patch becomes a *token*: a
vector of D numbers. The tokens pass through a stack of blocks. In each block, attention
lets every token collect information from the others, and an MLP works on each token by
itself. At the end one vector per image is left, and a linear layer turns it into a score
for each class. `numpyvit/vit.py` is this paragraph in code; look at its first lines now, for
the shapes, and read it again at the end.

**What training does.** The *loss* L is one number that says how wrong the scores are for
a batch of images with known labels. Its *gradient* with respect to a weight w says how
L changes when w does, and training moves every weight a little in the direction that
lowers L. With thousands of weights the gradients come from one pass backwards through the
model, by the chain rule. If y is computed from x, and L from y, then

    ∂L/∂x_i = Σ_j ∂L/∂y_j ∂y_j/∂x_i

so a layer that is told ∂L/∂y can compute ∂L/∂x and pass it on to the layer before it, and
∂L/∂w for its own weights. No layer needs to know anything about the rest of the model.

**What a layer is.** A pair of functions, one above the other, and below them a small class:

    y, cache = NAME_forward(x, weights...)      what the layer computes
    dx, dweights... = NAME_backward(dy, cache)  the gradients, computed from dy

    x, y      arrays; dx, dy are ∂L/∂x and ∂L/∂y, arrays of the same shapes as x and y.
              A partial derivative in a formula is written ∂y/∂x, never dy/dx.
    cache     what backward needs from forward, usually a tuple: the second value that
              forward returns. Only the pair that made it looks inside.
    Param     a weight that the layer declares: its shape and initial values (params.py).
    Buffer    the values of all weights of a model. `params[self.w]` is the array of the
              weight w, and `grads[self.w]` is that of its gradient in another Buffer.

The functions return gradients; the classes add them into the Buffer that the caller passes,
since a weight may be used several times. `Array | Any` in a signature stands for "an array,
or None where the docstring says so". No function changes its inputs, dy or the cache.
(A layer that does nothing, such as dropout in evaluation, may return x or dy itself.)

**Helpers.** The functions compute the formula on their right, most of them in a faster way
(backend/ops.py and backend/arrays.py say how, and by how much):

    matmul(a, b)       a @ b
    row_sum(x)         x.sum(-1, keepdims=True)
    row_mean(x)        x.mean(-1, keepdims=True)
    row_dot(a, b)      (a * b).sum(-1, keepdims=True)
    col_sum(x)         the sum over all axes except the last
    as_rows(x)         x.reshape(-1, x.shape[-1])
    transposed(x, s)   s * x with its last two axes swapped
    get_xp(x)          numpy, or cupy if x is on a GPU: xp.exp(x) works for both
    @on_gpu            above a function: for arrays on a GPU, a kernel computes the same
    @fast_twin(f)      above a function: f computes the same faster, and is what runs
                       (inspect.unwrap returns the function as you read it)

**Letters** for sizes mean the same on every page, except for L and n, which have two
meanings:

    B  images in a batch            H, W, C  height, width, channels of an image
    P  side of a patch              N        tokens in the sequence, prefix tokens included
    D  width of a token             L        depth, the number of blocks (or the loss)
    h  heads, E = D / h             F        hidden width of the MLP
    K  classes                      I, O     features into and out of a linear layer
    n  rows of a matrix (the leading axes together), or patches of an image
    m  patches that take part, where some are dropped
    ...  any leading axes

Images are (B, H, W, C). Weights are (I, O), so that the code reads `x @ w + b`. In code the
transpose is `.T` or `.swapaxes(-1, -2)`, in formulas ᵀ.

**Reading order.**

    1   ../vit.py       the map: its docstring and `forward`; read rng, keep and rotation
                        as None, and skip the rest for now
    2   ../params.py    weights: Param, Buffer; its docstring is enough for now
    3   linear          y = x w + b, and the gradients that everything else rests on
    4   gelu            the nonlinearity
    5   mlp             two linear layers with a GELU in between: each token by itself
    6   softmax         scores into probabilities
    7   attention       tokens exchange information
    8   layernorm       keep the features at one scale
    9   block           attention and MLP around a residual stream
    10  patches         an image as a row of tokens: reshape, transpose, reshape
    11  prefix          the class token
    12  positions       where in the image a token comes from
    13  pooling, head   one vector for each image, and a score for each class
    14  ../losses.py    cross-entropy: where the backward pass begins
    15  ../vit.py       the whole model, backward

Then the techniques that not every model uses: rotary (positions as rotations), dropout,
patch_dropout, overlap. An appendix for those who want to know how it is made fast:
attention_fast, rotary_fast, attention_pool, last_block. Each says which page it replaces,
and the tests compare the two.

The examples in the docstrings are for you to run and to change: start Python, and begin with
`from numpyvit.layers.linear import *`, or the name of another page.

To check a page against numbers: `numpyvit gradcheck` compares the backward functions with
finite differences of the forward functions.
"""
