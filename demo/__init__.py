"""Torpor shown at work: two patterns on real parts, measured while they run."""
