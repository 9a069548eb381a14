"""``python -m torpor.cli``: the command line where the console script is not on the path."""

from torpor.cli import main

main()
