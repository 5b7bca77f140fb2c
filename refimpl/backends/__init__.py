"""What runs virtual machines below the engine: one package for each backend, none imported by the engine."""
