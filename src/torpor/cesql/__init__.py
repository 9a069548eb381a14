"""CloudEvents SQL 1.0: a text is parsed to nodes, and these are compiled once to plain closures.

Source: the CloudEvents SQL Expression Language, version 1.0.0; its sections are named where rules come from.
What an expression costs is bounded by its length, its depth and the longest text that a function makes.
"""
