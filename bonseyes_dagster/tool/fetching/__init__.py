"""What a tool takes from elsewhere: parameters that name artifacts and URLs, and the inputs that come of them."""
