"""Instances as processes: forked from a template that is forked from a warm parent.

Nothing is imported here: the warm parent is started as a module of this package, and has to stay small.
"""
