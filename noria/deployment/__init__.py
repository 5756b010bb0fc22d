"""What serves: gate, releases, and keeping the running engines as the ledger wants them."""
