"""Load: what is created, when it is meant to be, and the ledger's account of it."""
