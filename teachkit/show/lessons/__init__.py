"""What one lesson shows and asks: a file per lesson, of the notebook's stem, found by name."""
