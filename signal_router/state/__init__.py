"""Tables: the local, disposable copy of what the join stage keeps; the changelog is the authority."""
