"""What a lecturer and CI do: set up, run the notebooks, run the tests."""
