"""Measures the size of the disk of each instance, because AWS has no metric for it.

RDS enlarges a disk by itself. The alarms compare the free storage with the size that the disk has
now.
"""
