"""Raft as the paper has it: deterministic, without I/O, clock or global randomness.

An event and the time go in, effects come out as values. Start reading at `raft.py`.
"""
