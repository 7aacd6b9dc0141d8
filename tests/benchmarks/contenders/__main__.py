"""Run one function of one contender, and print what it counted and how long the work alone took."""

import importlib
import json
import sys
import time

# The processes of a cluster import this module, too.
if __name__ == "__main__":
    module, function, *arguments = sys.argv[1:]
    work = getattr(importlib.import_module(f"tests.benchmarks.contenders.{module}"), function)
    started = time.perf_counter()
    count = work(*arguments)
    print(json.dumps({"seconds": time.perf_counter() - started, "count": count}))
