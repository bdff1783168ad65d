"""The visualization container: TensorBoard over the artifact API."""
