"""A client's session as it passes through a node that does not lead: understood well enough to be opened anew."""
