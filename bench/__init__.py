"""Figures, each reproduced by one command; every figure of durable commits stands beside the floor of the same run."""
