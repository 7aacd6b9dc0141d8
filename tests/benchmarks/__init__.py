"""How fast the package is, side by side with what else does the same work.

``python -m tests.benchmarks`` runs everything, ``--list`` shows what there is, and what came out
stands in ``docs/performance.md``. Nothing is installed: a contender that is not there is named and
left out.
"""
