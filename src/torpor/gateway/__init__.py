"""The one way in: Envoy routes requests to instances, and the activator holds them while there is none.

What is decided is pure: :mod:`~torpor.gateway.routes` (which request goes where),
:mod:`~torpor.gateway.snapshot` (that as Envoy's resources), :mod:`~torpor.gateway.delta` (what Envoy has and
has not yet), :mod:`~torpor.gateway.targets` (which instance is next, and who may wait) and
:mod:`~torpor.gateway.counters`. :class:`torpor.gateway.gateway.Gateway` is all that other parts use.
"""

from torpor.settings import leave_forks_alone

leave_forks_alone()
