"""Pre-migration checks: facts in, problems out, all at once."""
