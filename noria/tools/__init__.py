"""Tools that a model may call: Python functions, MCP servers, tables, and the loop that calls them."""
