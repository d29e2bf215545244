"""Tables: the local, disposable copy of what the join stage keeps, over a store of bytes; the changelog is the authority."""
