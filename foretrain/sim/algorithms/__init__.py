"""How collectives are run: one algorithm a module, and the choice among them as each library makes it."""
