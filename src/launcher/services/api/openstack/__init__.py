"""The OpenStack dialect: one module per service, below a path of its own on the API's listener."""
