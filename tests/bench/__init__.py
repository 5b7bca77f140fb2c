"""What `ci/bench` measures, and how: pairs in one run, the same events for both sides, every sample kept.

No test asserts a time; these programs report times, each beside a calibration of the machine, and judge a bound only
by a whole interval.
"""
