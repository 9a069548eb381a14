"""How fast filters judge, each dialect beside code by hand that says the same."""
