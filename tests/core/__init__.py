"""The core alone: `Raft.step` by hand, and clusters of cores without a runtime."""
