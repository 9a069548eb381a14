"""What runs inside a function's process: the author's handler or app, served over HTTP.

It imports nothing of the platform: ``pip install torpor`` without extras is enough for it.
"""
