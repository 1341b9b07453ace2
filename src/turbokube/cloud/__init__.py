"""Hosts that are bought: what they cost, making them, removing them and proving it."""
