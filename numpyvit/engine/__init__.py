"""How a training step is computed: by threads on the CPU, as a CUDA graph on a GPU.

base.py says what an engine is and chooses one; threads.py and cuda_graph.py are the two
engines; workers.py is the thread pool that is also public as `numpyvit.Workers`.
"""
