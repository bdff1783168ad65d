"""The tool's own code: loaded, hashed for its version, and watched."""
