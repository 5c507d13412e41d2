"""Checks the copies of the secrets in the recovery region. Fails and names each faulty copy.

The function runs in both regions. The primary region knows whether Secrets Manager has copied the
newest version. The recovery region sees its copies also when the primary region does not answer.
The alarm counts the errors of the function.
"""
