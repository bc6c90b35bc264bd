"""A stand-in for CuPy, its kernels and cuBLAS, for tests on machines without a GPU."""
