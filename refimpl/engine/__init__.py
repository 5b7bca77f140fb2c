"""The engine: the table, the pure step, the seam, the conductor with its journal, and recovery."""
