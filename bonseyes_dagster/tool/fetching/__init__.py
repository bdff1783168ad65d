"""Inputs from elsewhere: check parameters that name artifacts and URLs, and fetch their files."""
