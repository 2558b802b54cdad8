"""What a guest is told of itself, as trees of files; pure. The metadata service answers with them, a config drive holds
them."""
