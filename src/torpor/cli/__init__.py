"""The ``torpor`` command."""
