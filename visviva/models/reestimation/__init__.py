"""Euler-Lagrange re-estimation of human motion: analytic, with true masses, and learned (FinePhys, arXiv 2505.13437)."""
