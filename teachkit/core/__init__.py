"""What every room speaks: types, checks, masks' arithmetic, losses, kinds of layers, criteria.

Nothing is imported here: ``core.files`` must work before torch is installed.
"""
