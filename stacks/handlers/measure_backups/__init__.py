"""Measures the backups of one region, because AWS has no metrics for them.

The function runs on a schedule. It asks only its own region, so it works when the other region does
not. If it cannot find a value, it prints the other values and then fails. The alarms treat missing
data as a breach.
"""
