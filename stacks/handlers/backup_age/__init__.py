"""Measures the age of the recovery point in the recovery region, because AWS has no metric for it.

The function runs on a schedule in that region. It asks only that region, so it works when the
primary region does not. If it cannot find the age, it fails and prints no value. The alarm
treats missing data as a breach.
"""
