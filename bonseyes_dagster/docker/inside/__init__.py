"""What runs inside the containers of a docker project, beside the services: preparation, health, the engine's proxy."""
