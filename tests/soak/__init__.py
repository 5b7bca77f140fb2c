"""Random moves under random faults, by a seed: schedules that can be replayed, a history, and what must never be."""
