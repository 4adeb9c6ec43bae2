"""What is measured: each module has ``cases(quick)`` and, where it has results to show, ``tables(quick)``.

A module belongs to a suite of :mod:`benchmarks.bench` by its name in ``SUITES``. They stand
outside the wheel and are run in a checkout: ``python -m teachkit bench SUITE``. Beside them stands what
measures the tests: :mod:`benchmarks.mutants`.
"""
