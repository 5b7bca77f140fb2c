"""The contract of the seam, proved on every backend by the same tests."""
