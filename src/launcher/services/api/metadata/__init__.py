"""The metadata service: what a guest is told about itself at 169.254.169.254, as EC2's tree and as OpenStack's.

`door.py` lets guests in and says who they are, `guests.py` asks the other roles about them, `ec2.py` and `openstack.py`
are what they see, `service.py` answers; `view.py` shows the same to an instance's owner.
"""
