"""One module for each way to do the work, with a short function for each kind of work.

They run as processes of their own: ``python -m tests.benchmarks.contenders MODULE FUNCTION …``.
A function returns how many files or items it got.
"""
