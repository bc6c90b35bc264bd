"""Hypothesis draws seeds and shapes; the time of an example says nothing here, so there is no deadline."""

from hypothesis import settings

settings.register_profile("numpyvit", deadline=None, max_examples=25)
settings.load_profile("numpyvit")
