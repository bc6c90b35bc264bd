from hypothesis import given
from hypothesis import strategies as st

from numpyvit.gradcheck import SHARP
from numpyvit.layers.mlp import MLP
from numpyvit.testing import check_layer_contract, normal, seeds, shapes_BND


@given(shapes_BND(max_D=4), st.integers(1, 5), st.sampled_from(["tanh", "erf"]), seeds)
def test_contract(shape, hidden, gelu, seed):
    check_layer_contract(MLP(shape[-1], hidden, gelu), normal(shape, seed), seed, tolerance=SHARP)
