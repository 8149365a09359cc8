"""A broker in a thread for all these tests, and a virtual host for each, from the plugin as people have it.

Where rabbitish is installed its entry point has loaded the plugin already; where it is only on the path, as in a
checkout, these are the same fixtures.
"""

from __future__ import annotations

from rabbitish.testing.plugin import rabbitish_broker as rabbitish_broker
from rabbitish.testing.plugin import rabbitish_options as rabbitish_options
from rabbitish.testing.plugin import rabbitish_url as rabbitish_url
from rabbitish.testing.plugin import rabbitish_vhost as rabbitish_vhost
