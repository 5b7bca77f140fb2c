"""Pure decisions: numbers and evidence in, decision events out. No I/O, no clock, no knowledge of the phase."""
