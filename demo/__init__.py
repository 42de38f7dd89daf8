"""The program behind `make demo`; `run.py` is its entry."""
