"""The EC2 dialect: Query protocol in, XML out. It translates and decides nothing.

An operation is a request model, a mapping to messages and a shape of the answer (`operation.py`); everything else, from
the signature to paging, is made from these: `service.py` shows the way of a request.
"""
