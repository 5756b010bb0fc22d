"""What can be wrong with a machine, a project and its engines: small checks that say what to type."""
