"""The commands of `omokage`, one module each; `pipeline/cli.py` gathers them."""
