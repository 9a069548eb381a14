"""How much of a processor one event costs, beside other runtimes for Python functions."""
