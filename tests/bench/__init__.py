"""Measures the local database against its unavoidable parts, and pooled against direct."""
