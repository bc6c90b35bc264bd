"""Choosing patches on a GPU: a thread for each patch looks at all others of its image.

CuPy can sort, too, but waits for the result, which a CUDA graph cannot.
"""

from ..arrays import Array, get_xp
from .launch import by_elements

CODE = """
// kept: whether fewer than `patches` numbers of its image come before it, ordered by size and
// then by place
extern "C" __global__ void rank(
        const unsigned long long* bits, long long* kept, long long n, long long patches,
        long long size) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x, before = 0;
    if (i >= size) return;
    const unsigned long long* image = bits + i / n * n;
    for (long long j = 0; j < n; j++)
        before += image[j] < bits[i] || (image[j] == bits[i] && j < i % n);
    kept[i] = before < patches;
}
extern "C" __global__ void gather(
        const long long* kept, long long* index, long long n, long long patches, long long size) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x, place = 0;
    if (i >= size || !kept[i]) return;
    for (long long j = i / n * n; j < i; j++) place += kept[j];
    index[i / n * patches + place] = i % n;
}
"""


def choose_patches(bits: Array, m: int) -> Array:
    """bits (B, n), random uint64  ->  (B, m)."""
    xp = get_xp(bits)
    B, n = bits.shape
    kept, index = xp.empty((B, n), "i8"), xp.empty((B, m), "i8")
    by_elements(CODE, "rank", bits.size, bits, kept, n, m, dtype="f4")
    by_elements(CODE, "gather", bits.size, kept, index, n, m, dtype="f4")
    return index
