"""Seeing what a model does: its shapes and costs, where its time goes, attention, images."""
