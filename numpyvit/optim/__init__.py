"""Optimizers over the flat Buffer, and learning rate schedules."""
