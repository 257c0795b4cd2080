"""A world in memory on which the very same node runs: a clock that jumps, a network that delays, a disk that forgets.

Everything is deterministic: chance comes from one seed, time moves only when nothing is ready.
"""
