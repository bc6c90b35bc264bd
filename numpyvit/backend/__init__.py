"""Everything that depends on the array library: NumPy on the host, CuPy on a GPU."""
