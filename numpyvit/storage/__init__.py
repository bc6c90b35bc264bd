"""Atomic files, locks between processes, and archives read without trust."""
