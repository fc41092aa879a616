"""The same questions as tools of the Model Context Protocol (https://modelcontextprotocol.io).

``tools`` is the server, whatever it is reached through: streamable HTTP in the owner (``http_api/mcp.py``), or stdio
with `inhouse mcp` (``cli/mcp.py``), which asks the owner.
"""
