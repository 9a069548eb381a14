"""Suites of cases that every implementation of a protocol must pass, the shipped fake and the real thing."""
