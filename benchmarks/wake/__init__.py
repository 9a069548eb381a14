"""How long a function takes to wake, by fork and by a start of its own, side by side."""
