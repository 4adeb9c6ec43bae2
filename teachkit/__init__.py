"""The code behind a course on neural network pruning: one small module a lesson.

Nothing is imported here, so that ``python -m teachkit`` works before torch is installed.
"""

__version__ = "0.1.0"
