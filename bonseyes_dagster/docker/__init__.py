"""The project as containers of Docker: build the images, check the files, start and stop, back up."""
