"""What runs inside the containers of a deployment, beside the services: preparation, health, the engine's proxy."""
