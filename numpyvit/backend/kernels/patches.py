"""The twin of layers/patch_dropout.py's choose_patches: a thread for each patch looks at all others of its image. (CuPy
sorts too, but waits for the end, which a CUDA graph cannot.)"""

from ..arrays import Array, get_xp
from .launch import by_elements

CODE = """
// kept: whether so few numbers of its image come before it, in order of size and then of place
extern "C" __global__ void rank(const unsigned long long* bits, long long* kept, long long n, long long patches,
                                long long size) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x, before = 0;
    if (i >= size) return;
    const unsigned long long* image = bits + i / n * n;
    for (long long j = 0; j < n; j++) before += image[j] < bits[i] || (image[j] == bits[i] && j < i % n);
    kept[i] = before < patches;
}
extern "C" __global__ void gather(const long long* kept, long long* index, long long n, long long patches, long long size) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x, place = 0;
    if (i >= size || !kept[i]) return;
    for (long long j = i / n * n; j < i; j++) place += kept[j];
    index[i / n * patches + place] = i % n;
}
"""


def choose_patches(bits: Array, patches: int) -> Array:
    """bits (B, n), random uint64  ->  (B, patches)."""
    xp, (B, n) = get_xp(bits), bits.shape
    kept, index = xp.empty((B, n), "i8"), xp.empty((B, patches), "i8")
    by_elements(CODE, "rank", bits.size, bits, kept, n, patches, dtype="f4")
    by_elements(CODE, "gather", bits.size, kept, index, n, patches, dtype="f4")
    return index
