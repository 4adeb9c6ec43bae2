"""The engine room: what makes a lesson's plain algorithm exact and fast on any network.

Each file explains itself in a page at its top. Engines know ``teachkit.core`` and nothing else of ours.
"""
