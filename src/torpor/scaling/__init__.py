"""How many instances a function should have: windows and decision (pure), and the loop that feeds them."""
