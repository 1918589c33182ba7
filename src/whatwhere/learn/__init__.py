"""Plans and trains a network, and keeps the run. Import from the modules: few need all of it, and some are heavy."""
